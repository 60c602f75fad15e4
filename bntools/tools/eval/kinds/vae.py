"""Scores of an autoencoder: held-out error full and pruned, samples against real rows, axes against known factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.errors import bad_input, usage
from bntools.core.methods import image_features
from bntools.core.methods.vae import artifact, disentangle
from bntools.core.methods.vae.artifact import LatentModel
from bntools.core.methods.vae.rows import RowSource, open_rows
from bntools.core.methods.vae.scores import squared_errors
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request

_OPTIONS = ("rows", "tensor", "factors", "part")
_ROWS = 5000


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report `vae-scores` of bntools-ard-fit(1).

    data: rows not trained on; of a folder of IDX files, its test part. options: rows (at most so many, spread evenly),
    tensor, factors (the tensor of known factors beside the rows), part (train or test).
    """
    unknown = [name for name in request.options if name not in _OPTIONS]
    if unknown:
        raise usage(f"--set {unknown[0]}: no setting of an autoencoder", f"one of {', '.join(_OPTIONS)}")
    if len(request.data) != 1:
        raise usage(f"{len(request.data)} --data: an autoencoder is scored on one", "--data rows.safetensors")
    model = artifact.read(source)
    rows = open_rows(request.data[0], request.options.get("tensor"), str(request.options.get("part", "test")))
    artifact.check_fits(model, rows.shape, rows.label)
    index = np.linspace(0, rows.rows - 1, min(int(request.options.get("rows", _ROWS)), rows.rows)).astype(int)
    with progress("rows", 3) as step:
        x = _read(rows, index)
        report: dict[str, Any] = {
            "kind": "vae-scores", "method": model.facts.get("method"), "axes": model.relevant,
            "max_dim": model.net.arch.dim, "rows": len(x), "error": _errors(model, x),
        }  # fmt: skip
        step(1)
        if _is_image(rows.shape) and len(x) >= 8:
            report["frechet"] = _frechet(model, x, request.seed)
        step(1)
        factors = _factors(rows, str(request.options.get("factors", "factors")), index)
        if factors is not None and model.relevant:
            report["disentanglement"] = _disentangled(model, x, factors, request.seed)
        step(1)
    return report


def _read(rows: RowSource, index: NDArray[Any]) -> NDArray[np.float32]:
    """Rows at ascending places, in pieces; those that are not finite are refused."""
    parts = []
    for chunk in np.array_split(index, max(1, len(index) // 500)):
        block = rows.read(int(chunk[0]), int(chunk[-1]) + 1)
        parts.append(block[chunk - chunk[0]])
    x = np.concatenate(parts)
    if not np.isfinite(x).all():
        raise bad_input(f"{rows.label} has rows with NaN or infinity")
    return x


def _errors(model: LatentModel, x: NDArray[np.float32]) -> dict[str, Any]:
    """Squared errors a row with all axes, with those in use, and with none, in squared units of the data."""
    prepared = model.prepare(x)
    with torch.no_grad():
        mean = torch.cat([model.net.encode(part)[0] for part in prepared.split(1000)])
    pruned = model.prior.mean.expand_as(mean).clone()
    none = pruned.clone()
    pruned[:, model.axes] = mean[:, model.axes]
    errors = {name: squared_errors(model.net, prepared, z) * model.scale**2
              for name, z in (("full", mean), ("pruned", pruned), ("none", none))}  # fmt: skip
    means = {name: _mean_error(values) for name, values in errors.items()}
    means["cost"] = _mean_error((errors["pruned"] - errors["full"]) / errors["full"].mean())
    variance = float(torch.as_tensor(x).flatten(1).var(0, correction=0).sum())
    return {**means, "variance": variance}


def _mean_error(values: torch.Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "se": float(values.std() / len(values) ** 0.5)}


def _frechet(model: LatentModel, x: NDArray[np.float32], seed: int) -> dict[str, Any]:
    """Distances of as many samples as half the rows, in features of a classifier of digits, beside the floor.

    reconstructions: of the same real rows through the kept axes. noise: pixels of the rows, each shuffled over rows.
    """
    count = len(x) // 2
    real = image_features.features(x)
    half = real[np.random.default_rng(seed).permutation(len(x))[:count]]
    shuffled = (
        np.random.default_rng(seed).permuted(x[:count].reshape(count, -1), axis=0).reshape(x[:count].shape)
    )
    level = image_features.floor(real, count, seed=seed)
    with torch.no_grad():
        rebuilt = model.decode(model.encode(x[:count]))
    distances = {
        "mixture": model.sample(count, seed), "prior": model.sample(count, seed, from_prior=True),
        "reconstructions": rebuilt, "shuffled_pixels": shuffled,
    }  # fmt: skip
    values = {
        name: image_features.frechet(image_features.features(images), half)
        for name, images in distances.items()
    }
    return {"samples": count, "floor": {"mean": level.mean, "se": level.se}, **values}


def _factors(rows: RowSource, name: str, index: NDArray[Any]) -> NDArray[Any] | None:
    if name not in rows.beside:
        return None
    factors = rows.beside[name]()[index]
    factors = factors.reshape(len(index), -1)
    return factors[:, [len(np.unique(column)) > 1 for column in factors.T]]


def _disentangled(
    model: LatentModel, x: NDArray[np.float32], factors: NDArray[Any], seed: int
) -> dict[str, Any]:
    """Scores of the kept axes; as baselines principal components, as many, and a random turn of the code."""
    codes = model.encode(x).numpy().astype(np.float64)
    flat = x.reshape(len(x), -1).astype(np.float64)
    _, _, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(codes.shape[1],) * 2))[0]
    whitened = (codes - codes.mean(0)) / np.maximum(codes.std(0), 1e-12)
    return {
        "factors": factors.shape[1], "code": disentangle.scores(codes, factors),
        "pca": disentangle.scores(flat @ axes[: codes.shape[1]].T, factors),
        "turned": disentangle.scores(whitened @ turn, factors),
    }  # fmt: skip


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and min(shape[-2:]) >= 8


def tables(report: dict[str, Any]) -> list[Any]:
    """What a person sees: baselines first."""
    three, error = terminal.three, report["error"]
    rows = [["variance of the rows", three(error["variance"]), "-"]]
    for name, text in (
        ("none", "no axis"),
        ("full", f"all {report['max_dim']} axes"),
        ("pruned", f"{report['axes']} axes"),
    ):
        rows.append([text, three(error[name]["mean"]), three(error[name]["se"])])
    rows.append(["cost of pruning (%)", three(100 * error["cost"]["mean"]), three(100 * error["cost"]["se"])])
    shown = [terminal.table([f"{report['rows']:,} rows, squared error", "a row", "±"], rows)]
    if "frechet" in report:
        part = report["frechet"]
        rows = [["floor: real rows", three(part["floor"]["mean"])], ["shuffled pixels", three(part["shuffled_pixels"])],
                ["reconstructions", three(part["reconstructions"])], ["samples of the prior", three(part["prior"])],
                ["samples of the mixture", three(part["mixture"])]]  # fmt: skip
        shown.append(terminal.table([f"{part['samples']:,} images", "Fréchet distance"], rows))
    if "disentanglement" in report:
        part = report["disentanglement"]
        rows = [
            [name, *(three(part[who][name]) for who in ("pca", "turned", "code"))] for name in part["code"]
        ]
        shown.append(terminal.table([f"{part['factors']} factors", "PCA", "turned code", "code"], rows))
    return shown
