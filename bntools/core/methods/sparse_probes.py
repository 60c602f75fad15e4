"""What sparse codes tell of labels and of foreign rows, beside what the rows themselves tell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from bntools.core.errors import bad_input
from bntools.core.methods.sparse_dictionary import Dictionary
from bntools.kernels.sparse.selection import Floats, Support

COUNTS = (1, 2, 5, 10)
_RIDGES = (1e-3, 1e-1, 1e1)
_ROWS = 20_000
_COLUMNS = 4096


def probe(
    dictionary: Dictionary, x: Floats, codes: Support, labels: NDArray[Any], seed: int = 0
) -> dict[str, Any]:
    """Accuracy on held-out rows of linear probes of the classes: on n latents, on all, on the raw rows.

    Ridge regression to one-hot labels, its weight chosen on a validation part. The n latents have the largest ratio of
    variance between and within classes on the training part. Baselines: n latents chosen at random, the largest class.
    """
    chosen = np.random.default_rng([seed, 3]).permutation(len(x))[:_ROWS]
    classes, y = np.unique(labels[chosen], return_inverse=True)
    if len(classes) < 2:
        raise bad_input("all rows have one label", "a probe needs two classes")
    z = dense(codes, chosen, len(dictionary.D))
    parts = np.split(np.arange(len(chosen)), [int(0.6 * len(chosen)), int(0.8 * len(chosen))])
    order = np.argsort(-_separation(z[parts[0]], y[parts[0]], len(classes)), kind="stable")
    random = np.random.default_rng([seed, 4]).permutation(len(dictionary.D))
    counts = [n for n in COUNTS if n < len(dictionary.D)]
    used = order[:_COLUMNS]
    return {
        "classes": len(classes), "rows": len(chosen), "largest_class": float(np.bincount(y).max() / len(y)),
        "codes": {str(n): _accuracy(z[:, order[:n]], y, parts) for n in counts}
        | {"all": _accuracy(z[:, used], y, parts)},
        "random_latents": {str(n): _accuracy(z[:, random[:n]], y, parts) for n in counts},
        "raw": _accuracy(dictionary.normalise(x[chosen]), y, parts),
    }  # fmt: skip


def foreign(
    dictionary: Dictionary, inside: tuple[Floats, Support], outside: tuple[Floats, Support], threads: int = 1
) -> dict[str, float]:
    """AUROC of scores that tell rows `outside` from rows `inside`; 0.5 is chance, mahalanobis the baseline on rows.

    error: share of a row its codes do not explain; weakness: its largest code, negated; profile: distance of its codes
    from the mean codes inside; mahalanobis: of the row from the mean inside, its covariance from half of those rows.
    """
    half = len(inside[0]) // 2
    fit = inside[0][:half].astype(np.float64)
    mean = fit.mean(0)
    covariance = np.cov(fit.T) + 1e-3 * np.trace(np.cov(fit.T)) / fit.shape[1] * np.eye(fit.shape[1])
    inverse = np.linalg.inv(covariance)
    profile = _mean_codes(inside[1], len(dictionary.D))
    scores: dict[str, list[NDArray[Any]]] = {}
    for x, codes in ((inside[0][half:], _rows(inside[1], half)), outside):
        apart = x - mean
        back = dictionary.decode(codes, threads)
        norm = np.maximum(np.square(x - dictionary.mean).sum(1), 1e-12)
        report = {
            "error": np.square(x - back).sum(1) / norm, "weakness": -_largest(codes),
            "profile": _distance(codes, profile),
            "mahalanobis": np.einsum("nd,de,ne->n", apart, inverse, apart, optimize=True),
        }  # fmt: skip
        for name, values in report.items():
            scores.setdefault(name, []).append(values)
    return {name: auroc(*pair) for name, pair in scores.items()}


def auroc(low: NDArray[Any], high: NDArray[Any]) -> float:
    """Chance that a value of `high` exceeds one of `low`, ties counted half."""
    ranks = rankdata(np.concatenate([low, high]))
    return float((ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def stability(one: Dictionary, other: Dictionary) -> dict[str, float]:
    """Mean |cosine| of latents paired one to one (Hungarian) between two dictionaries, beside random directions."""
    if one.D.shape[1] != other.D.shape[1]:
        raise bad_input(f"{other.label} has width {other.D.shape[1]}, {one.label} {one.D.shape[1]}")
    random = np.random.default_rng(5).standard_normal(other.D.shape).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    shares = []
    for D in (other.D, random):
        cosines = np.abs(one.D @ D.T)
        shares.append(float(cosines[linear_sum_assignment(-cosines)].mean()))
    return {"matched_cosine": shares[0], "random_cosine": shares[1]}


def dense(codes: Support, rows: NDArray[np.int64], latents: int) -> Floats:
    """Codes of some rows as [n, m]."""
    out = np.zeros((len(rows), latents), np.float32)
    for place, row in enumerate(rows):
        a, b = codes.indptr[row], codes.indptr[row + 1]
        out[place, codes.latents[a:b]] = codes.values[a:b]
    return out


def _separation(z: Floats, y: NDArray[np.int64], classes: int) -> Floats:
    """Between-class over within-class variance of each column."""
    counts = np.bincount(y, minlength=classes)[:, None]
    means = np.stack([z[y == c].mean(0) if (y == c).any() else z.mean(0) for c in range(classes)])
    between = (counts * np.square(means - z.mean(0))).sum(0)
    within = np.square(z - means[y]).sum(0)
    return between / np.maximum(within, 1e-9 + 1e-3 * within.mean())


def _accuracy(features: Floats, y: NDArray[np.int64], parts: list[NDArray[np.int64]]) -> float:
    mean, std = features[parts[0]].mean(0), np.maximum(features[parts[0]].std(0), 1e-6)
    f = np.concatenate([(features - mean) / std, np.ones((len(features), 1), np.float32)], 1).astype(
        np.float64
    )
    target = np.eye(y.max() + 1)[y]
    train, choose, test = parts
    gram, cross = f[train].T @ f[train], f[train].T @ target[train]
    best, result = -1.0, 0.0
    for ridge in _RIDGES:
        weights = np.linalg.solve(gram + ridge * len(train) * np.eye(len(gram)), cross)
        right = [float(((f[p] @ weights).argmax(1) == y[p]).mean()) for p in (choose, test)]
        if right[0] > best:
            best, result = right
    return result


def _rows(codes: Support, start: int) -> Support:
    first = codes.indptr[start]
    return Support(codes.indptr[start:] - first, codes.latents[first:], codes.values[first:])


def _mean_codes(codes: Support, latents: int) -> NDArray[np.float64]:
    return np.bincount(codes.latents, codes.values, latents) / max(len(codes.indptr) - 1, 1)


def _largest(codes: Support) -> NDArray[np.float64]:
    out = np.zeros(len(codes.indptr) - 1)
    np.maximum.at(out, codes.pair_rows, codes.values)
    return out


def _distance(codes: Support, profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """|z - profile|^2 of each row."""
    change = np.square(codes.values - profile[codes.latents]) - np.square(profile[codes.latents])
    return np.bincount(codes.pair_rows, change, len(codes.indptr) - 1) + np.square(profile).sum()
