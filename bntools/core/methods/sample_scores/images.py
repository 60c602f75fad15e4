"""Samples beside real images and beside each other, in features: Fréchet distance, accuracy, diversity, same seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.samples import FULL, MAIN, Samples
from bntools.core.errors import bad_input, usage
from bntools.core.methods.image_features import classify, features, floor, frechet
from bntools.core.progress import Progress, no_progress

Floats = NDArray[np.float32]
Features = Callable[[Floats], Floats]
DRAWS = 8
"""Halvings of the real images for the floor."""
_FEWEST = 2 * 64  # samples, so that 64 features have a covariance
_PAIRS = 20_000


class Reference(NamedTuple):
    """Features [n, d] and labels [n] of real images."""

    features: Floats
    label: NDArray[np.int64] | None


def pixels(x: Floats) -> Floats:
    """Samples [N, C, H, W] in [-1, 1], as samplers write them, in [0, 1]. Raises BnError (exit 3) for videos."""
    if x.ndim != 4:
        raise bad_input(f"samples of shape {list(x.shape)} are no pictures [N, C, H, W]")
    return np.clip((x + 1) / 2, 0, 1).astype(np.float32)


def score_rows(
    samples: Samples, *, reference: Reference | None, seed: int = 0, own: Floats | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:  # fmt: skip
    """Every tensor of the artifact, a row each, and the real images' own row and floor where there are any.

    own: features [N, d] of x0 by a model of the user's, in place of the classifier's of digits; other tensors then have
    no distances in features.
    """
    rows = []
    with progress("scoring", len(samples.rows)) as advance:
        for row in samples.rows:
            x = samples.x[row["tensor"]]
            given = None if own is None else (own if row["tensor"] == MAIN else False)
            rows.append({**_costs(row), **_scores(x, samples, row["tensor"], reference, given, seed)})
            advance(1)
    result: dict[str, Any] = {"rows": rows, "real": None, "floor": None}
    if reference is not None:
        count = len(samples.x[MAIN])
        result["real"] = {"diversity": diversity(reference.features, reference.label, seed)}
        if 2 * count <= len(reference.features) and count >= _FEWEST:
            least = floor(reference.features, count, DRAWS, seed)
            result["floor"] = {"mean": least.mean, "se": least.se, "n": least.rows}
    return result


def _costs(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in ("name", "tensor", "nfe", "cost", "wall")}


def _scores(
    x: Floats, samples: Samples, tensor: str, reference: Reference | None, given: Any, seed: int
) -> dict[str, Any]:
    label = samples.label
    digits = given is None and x.ndim == 4
    rows = features(pixels(x)) if digits else given if isinstance(given, np.ndarray) else None
    scores: dict[str, Any] = {
        "n": len(x),
        "frechet": None,
        "accuracy": None,
        "diversity": None,
        "distance": None,
    }
    if rows is not None:
        scores["diversity"] = diversity(rows, label, seed)
        if reference is not None and len(rows) >= _FEWEST:
            if rows.shape[1] != reference.features.shape[1]:
                raise bad_input(
                    f"features of the samples have {rows.shape[1]} columns, of the real images "
                    f"{reference.features.shape[1]}", "one model for both"
                )  # fmt: skip
            scores["frechet"] = frechet(rows, reference.features)
    if digits and label is not None and ((label >= 0) & (label < 10)).all():
        right = classify(pixels(x)).argmax(1) == label
        scores["accuracy"] = {"mean": float(right.mean()), "se": _error(right)}
    if FULL in samples.x and tensor != FULL:
        distances = relative(x, samples.x[FULL])
        scores["distance"] = {"mean": float(distances.mean()), "se": _error(distances)}
    return scores


def relative(x: Floats, full: Floats) -> NDArray[np.float64]:
    """|x - full| / |full| of each sample: what a cheaper way changes under the same seed."""
    flat, whole = x.reshape(len(x), -1).astype(np.float64), full.reshape(len(full), -1).astype(np.float64)
    return np.linalg.norm(flat - whole, axis=1) / np.maximum(np.linalg.norm(whole, axis=1), 1e-12)


def diversity(rows: Floats, label: NDArray[np.int64] | None, seed: int = 0) -> dict[str, Any] | None:
    """Mean cosine distance of pairs within a class or prompt, averaged over them; at most 20,000 pairs each.

    The error is of the mean over classes. None without two samples of anything.
    """
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    groups = np.zeros(len(rows), np.int64) if label is None else label
    generator, means = np.random.default_rng(seed), []
    for group in np.unique(groups):
        mine = unit[groups == group].astype(np.float64)
        n = len(mine)
        if n < 2:
            continue
        if n * (n - 1) // 2 <= _PAIRS:  # the sum over pairs from the sum of vectors
            total = (np.square(mine.sum(0)).sum() - np.square(mine).sum()) / (n * (n - 1))
            means.append(1 - total)
        else:
            first = generator.integers(n, size=_PAIRS)
            second = (first + generator.integers(1, n, size=_PAIRS)) % n
            means.append(1 - float((mine[first] * mine[second]).sum(1).mean()))
    if not means:
        return None
    return {
        "mean": float(np.mean(means)),
        "se": _error(np.array(means)) if len(means) > 1 else None,
        "groups": len(means),
    }


def _error(values: NDArray) -> float:
    """Standard error of a mean."""
    return float(np.std(values.astype(np.float64)) / max(len(values) - 1, 1) ** 0.5)


def digit_reference(path: str, seed: int = 0) -> Reference:
    """Features and labels of the test images of a labelled data set. Raises BnError as its reader."""
    from bntools.core.datasets.labelled import read

    test = read(path, seed).test
    if test.x.ndim not in (3, 4):
        raise usage(f"{path} holds no images", "bntools fetch mnist -o mnist/")
    return Reference(features(test.x), test.y)
