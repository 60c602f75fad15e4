"""How well sparse codes stand for rows: variance not explained, latents in use, and what simpler codes reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.sparse_dictionary import Dictionary, Inference
from bntools.kernels.sparse import pursuit, selection
from bntools.kernels.sparse.selection import Floats, Support

BLOCKS = 40
"""Contiguous blocks of rows, of which standard errors are taken: rows of one text are not independent."""
LEADING = 8
_RANDOM_STREAM = 9


def unexplained(x: Floats, other: Floats) -> dict[str, float]:
    """FVU = sum |x - other|^2 / sum |x - mean of x|^2, with a standard error from 40 blocks of rows."""
    errors = np.einsum("nd,nd->n", x - other, x - other, dtype=np.float64)
    spread = np.einsum("nd,nd->n", x - x.mean(0), x - x.mean(0), dtype=np.float64)
    return ratio(errors, spread)


def ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> dict[str, float]:
    """Sum of one over sum of the other, and its standard error, by the jackknife over blocks of rows."""
    value = float(above.sum() / max(below.sum(), 1e-300))
    ends = np.linspace(0, len(above), min(BLOCKS, len(above)) + 1).astype(int)
    if len(ends) < 3:
        return {"value": value, "se": float("nan")}
    a, b = (np.add.reduceat(v, ends[:-1]) for v in (above, below))
    without = (above.sum() - a) / np.maximum(below.sum() - b, 1e-300)
    n = len(without)
    return {"value": value, "se": float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))}


def score(
    dictionary: Dictionary, x: Floats, inference: Inference | None = None, threads: int = 1
) -> tuple[dict[str, Any], Support]:
    """Scores of ordinary rows x [N, d], and their codes."""
    codes = dictionary.encode(x, inference, threads)
    back = dictionary.decode(codes, threads)
    used = np.diff(codes.indptr)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(back, axis=1)
    report = {
        "inference": (inference or dictionary.inference).name,
        "fvu": unexplained(x, back),
        "fvu_without_top8": _without_leading(x, back),
        "cosine": float((np.einsum("nd,nd->n", x, back) / np.maximum(lengths, 1e-30)).mean()),
        "l0": {"mean": float(used.mean()), "p5": float(np.percentile(used, 5)), "p95": float(np.percentile(used, 95))},
    }  # fmt: skip
    return report, codes


def usage(dictionary: Dictionary, codes: Support) -> dict[str, Any]:
    """Latents never used, here and in training, and how often the others are: shares of rows by powers of ten."""
    rows = max(len(codes.indptr) - 1, 1)
    counts = np.bincount(codes.latents, minlength=len(dictionary.D))
    never = counts == 0
    if dictionary.count is not None:
        never &= dictionary.count == 0
    share = counts[counts > 0] / rows
    below = [10.0**-i for i in range(5, -1, -1)]
    histogram, _ = np.histogram(share, [0, *below[:-1], 1.0001])
    return {
        "dead": int(never.sum()), "unused_here": int((counts == 0).sum()),
        "density": {"below": below, "latents": histogram.tolist()},
    }  # fmt: skip


def baselines(dictionary: Dictionary, x: Floats, k: int, threads: int = 1) -> dict[str, Any]:
    """What k numbers a row reach without a dictionary: the k leading principal components of these very rows, and
    pursuit of k among as many random directions."""
    centred = x - x.mean(0)
    covariance = centred.T.astype(np.float64) @ centred
    values = np.linalg.eigvalsh(covariance)[::-1]
    pca = float(values[k:].clip(0).sum() / max(values.sum(), 1e-300))
    rng = np.random.default_rng(_RANDOM_STREAM)
    D = rng.standard_normal(dictionary.D.shape, np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    seen = np.ascontiguousarray(dictionary.normalise(x)[:2048])
    candidates = max(dictionary.inference.candidates, 3 * k)
    latents, counts = selection.candidates(
        selection.SparseEncoder(D, np.zeros(len(D), np.float32)), seen, candidates, threads
    )
    chosen, coefficients = pursuit.pursue(
        D, seen, latents, counts, pursuit.PursuitRules(k, nonnegative=False), threads=threads
    )
    back = np.einsum("nk,nkd->nd", coefficients, D[chosen]) if k * len(seen) * D.shape[1] < 1 << 28 else None
    if back is None:
        back = np.stack([c @ D[j] for c, j in zip(coefficients, chosen, strict=True)])
    return {
        "pca": {"components": k, "fvu": pca},
        "random": {"latents": len(D), "k": k, "fvu": unexplained(seen, back)["value"]},
    }  # fmt: skip


def _without_leading(x: Floats, back: Floats) -> float:
    """FVU outside the 8 leading principal components, which a few strong directions can dominate."""
    if x.shape[1] <= LEADING + 1:
        return float("nan")
    centred = x - x.mean(0)
    _, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    first = vectors[:, -LEADING:].astype(np.float32)
    residual = x - back
    residual = residual - (residual @ first) @ first.T
    centred = centred - (centred @ first) @ first.T
    return float(np.square(residual).sum() / max(np.square(centred).sum(), 1e-30))
