"""A scene of coded Gaussians from an artifact, rendered and queried without a map in the features' dimensions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.errors import bad_input
from bntools.kernels.sparse.composite import Splats, composite, rasterise, relevance

Floats = NDArray[np.float32]
_LARGEST = 1 << 26


class Scene(NamedTuple):
    """Splats, their codes [n, K], and the picture's size in pixels."""

    splats: Splats
    index: NDArray[np.int32]
    value: Floats
    height: int
    width: int


def read(source: Artifact, latents: int) -> Scene:
    """A scene: tensors mean [n, 2], conic [n, 3], opacity [n], depth [n], index and value [n, K], size [2].

    Raises BnError (exit 3) for what does not fit together, or codes of latents that the codebook lacks.
    """
    n = source.entries["mean"].shape[0] if "mean" in source.entries and source.entries["mean"].shape else 0
    wanted = {"mean": (n, 2), "conic": (n, 3), "opacity": (n,), "depth": (n,), "size": (2,)}
    for name, shape in wanted.items():
        if name not in source.entries or source.entries[name].shape != shape or n < 1:
            raise bad_input(
                f"{source.label} holds no {name} {list(shape)}", "see bntools-splat(1) for a scene's tensors"
            )
    arrays = {name: source.tensor(name).to(torch.float32).numpy() for name in wanted}
    shape = source.entries["index"].shape if "index" in source.entries else ()
    if (
        len(shape) != 2
        or shape[0] != n
        or "value" not in source.entries
        or source.entries["value"].shape != shape
    ):
        raise bad_input(f"{source.label} holds no index and value [{n}, K]", "codes of each splat")
    index = source.tensor("index").to(torch.int64).numpy()
    value = source.tensor("value").to(torch.float32).numpy()
    if not all(np.isfinite(array).all() for array in (*arrays.values(), value)):
        raise bad_input(f"{source.label} holds numbers that are not finite")
    if index.min() < 0 or index.max() >= latents:
        raise bad_input(f"{source.label} uses code {index.max()}, the codebook has {latents}")
    height, width = (int(v) for v in arrays["size"])
    if not 0 < height * width <= _LARGEST or min(height, width) < 1:
        raise bad_input(f"{source.label}: a picture of {height} x {width} pixels")
    splats = Splats(arrays["mean"], arrays["conic"], arrays["opacity"], arrays["depth"])
    return Scene(splats, index.astype(np.int32), value, height, width)


def weights(scene: Scene, latents: int, threads: int = 1) -> tuple[Floats, int]:
    """W [pixels, L], and how many splats all pixels see together."""
    blend = rasterise(scene.splats, scene.height, scene.width)
    return composite(blend, scene.index, scene.value, latents, threads), len(blend.elements)


def maps(W: Floats, codebook: Floats, queries: Floats, scene: Scene) -> Floats:
    """Cosine of every pixel's feature with every query: [n, height, width]; 0 where nothing is drawn."""
    unit = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    relevances = relevance(W, codebook @ codebook.T, codebook @ unit.T)
    relevances[~(W != 0).any(1)] = 0
    return relevances.T.reshape(len(queries), scene.height, scene.width)


def report(scene: Scene, relevances: Floats, seen: int, names: list[str], codebook: Floats) -> dict[str, Any]:
    """What was found where, and how much arithmetic the map in D dimensions would have been."""
    pixels, (latents, d) = scene.height * scene.width, codebook.shape
    queries = []
    for name, one in zip(names, relevances, strict=True):
        y, x = np.unravel_index(int(one.argmax()), one.shape)
        queries.append(
            {"name": name, "max": float(one.max()), "mean": float(one.mean()), "at": [int(x), int(y)]}
        )
    return {
        "kind": "splat", "pixels": [scene.height, scene.width], "splats": len(scene.index), "codes": latents,
        "codes_a_splat": scene.index.shape[1], "hits_a_pixel": seen / pixels, "queries": queries,
        "operations": {"code_space": 2 * pixels * latents * (latents + len(names)),
                       "feature_map": 2 * pixels * d * (latents + len(names) + 1)},
    }  # fmt: skip
