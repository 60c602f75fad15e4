"""Gradient boosting for a quantile: shallow trees on histograms of the features, in numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 32
DEPTH = 3
_FEWEST = 8  # rows of a leaf


class Trees(NamedTuple):
    """Complete trees of depth 3: feature and threshold [trees, 7], values [trees, 8], and what all start from [1]."""

    feature: NDArray[np.int32]
    threshold: Floats
    value: Floats
    start: Floats


def fit_quantile(x: Floats, y: Floats, quantile: float, *, rounds: int = 150, rate: float = 0.1) -> Trees:
    """Trees whose sum estimates a quantile of y [rows] given x [rows, features] (Friedman 2001, pinball loss).

    Each tree splits the sign of the residuals for the least squared error; a leaf holds the quantile of its residuals.
    """
    edges = np.quantile(x, np.linspace(0, 1, BINS + 1)[1:-1], axis=0)
    binned = np.stack([np.searchsorted(edges[:, f], x[:, f], side="left") for f in range(x.shape[1])], 1)
    start = np.quantile(y, quantile)
    current = np.full(len(y), start)
    nodes = 2**DEPTH - 1
    feature = np.zeros((rounds, nodes), np.int32)
    threshold = np.full((rounds, nodes), np.inf)
    value = np.zeros((rounds, nodes + 1))
    for tree in range(rounds):
        residual = y - current
        gradient = np.where(residual > 0, quantile, quantile - 1)
        leaf = _grow(binned, gradient, edges, feature[tree], threshold[tree])
        for index in np.unique(leaf):
            rows = leaf == index
            value[tree, index] = rate * np.quantile(residual[rows], quantile)
        current += value[tree][leaf]
    return Trees(feature, threshold, value, np.array([start]))


def _grow(
    binned: NDArray[np.intp], gradient: Floats, edges: Floats, feature: NDArray[np.int32], threshold: Floats
) -> NDArray[np.intp]:
    """Fill one tree's splits level by level; returns the leaf of every row."""
    place = np.zeros(len(gradient), np.intp)
    for level in range(DEPTH):
        first = 2**level - 1
        for node in range(first, 2 * first + 1):
            rows = np.flatnonzero(place == node - first)
            split = _best_split(binned[rows], gradient[rows]) if len(rows) >= 2 * _FEWEST else None
            if split is not None:
                feature[node], threshold[node] = split[0], edges[split[1], split[0]]
        node = place + first
        chosen = feature[node]
        cut = threshold[node]
        above = binned[np.arange(len(place)), chosen] > _bin_of(edges, chosen, cut)
        place = 2 * place + (above & np.isfinite(cut))
    return place


def _bin_of(edges: Floats, feature: NDArray[np.int32], cut: Floats) -> NDArray[np.intp]:
    """The bin whose upper edge a threshold is."""
    return (edges[:, feature] < cut).sum(0)


def _best_split(binned: NDArray[np.intp], gradient: Floats) -> tuple[int, int] | None:
    """Feature and bin after which a split explains most of the gradient."""
    count = binned.shape[1]
    flat = (binned + np.arange(count) * BINS).reshape(-1)
    total = np.bincount(flat, minlength=count * BINS).reshape(count, BINS).cumsum(1)[:, :-1]
    sums = np.bincount(flat, np.repeat(gradient, count), count * BINS).reshape(count, BINS).cumsum(1)[:, :-1]
    n, s = len(gradient), gradient.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        score = sums**2 / total + (s - sums) ** 2 / (n - total) - s**2 / n
    score = np.where((total >= _FEWEST) & (n - total >= _FEWEST), score, -1.0)
    best = int(score.argmax())
    if score.reshape(-1)[best] <= 1e-12:
        return None
    return best // (BINS - 1), best % (BINS - 1)


def predict(trees: Trees, x: Floats) -> Floats:
    """Sum of the trees [rows]."""
    result = np.full(len(x), float(trees.start[0]))
    rows = np.arange(len(x))
    for feature, threshold, value in zip(trees.feature, trees.threshold, trees.value, strict=True):
        node = np.zeros(len(x), np.intp)
        for _ in range(DEPTH):
            node = 2 * node + 1 + (x[rows, feature[node]] > threshold[node])
        result += value[node - (2**DEPTH - 1)]
    return result
