"""Entropies by neighbours beside what the same estimate gives for a normal of the same size and dimension."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from bntools.core.information import copula
from bntools.kernels.information.covariance import canonical
from bntools.kernels.information.nearest_neighbour import entropy_weights, neighbour_entropy
from bntools.kernels.neighbours.exact import nearest

Floats = NDArray[np.float64]

_QUERIES = 2000
_K = 5


def reference_information(x: Floats, y: Floats) -> float:
    """h(x) + h(y) - h(x, y) on canonical normal scores, each entropy less its error on N(0, I) of as many rows.

    Fails, far below zero, where a part lies on a manifold: its entropy then is minus infinity.
    """
    first, second, _ = canonical(copula.normal_scores(x), copula.normal_scores(y))
    joint, _, _ = canonical(np.hstack([first, second]), np.ones((len(x), 1)) + np.arange(len(x))[:, None])
    shift = float(np.linalg.slogdet(np.cov(np.hstack([first, second]).T))[1]) / 2
    return _excess(first) + _excess(second) - _excess(joint) - shift


def three_entropies(x: Floats, y: Floats, k: int = _K, *, weighted: bool = False) -> float:
    """h(x) + h(y) - h(x, y) of Kozachenko and Leonenko's estimates on standardized columns."""
    parts = [(part - part.mean(0)) / part.std(0) for part in (x, y)]
    entropies = [_entropy(part, k, weighted) for part in (*parts, np.hstack(parts))]
    return entropies[0] + entropies[1] - entropies[2]


def _entropy(points: Floats, k: int, weighted: bool) -> float:
    queries = np.arange(len(points))[: 2 * _QUERIES]
    k = max(k, 2 * points.shape[1]) if weighted and points.shape[1] > 4 else k
    distances = nearest(points, queries, min(k, len(points) - 1)).distances
    weights = entropy_weights(points.shape[1], distances.shape[1]) if weighted else None
    return neighbour_entropy(distances, points.shape[1], len(points), weights=weights)


def _excess(points: Floats) -> float:
    """Entropy of white points over that of N(0, I), as their common estimate sees it."""
    if (
        points.shape[1] == 1
    ):  # normal scores are a grid, whose entropy is known and whose neighbours are not random
        return 0.0
    return _of(points) - _of_normal(*points.shape)


def _of(points: Floats) -> float:
    queries = np.arange(0, len(points), max(1, len(points) // _QUERIES))
    distances = nearest(points, queries, _K).distances
    return neighbour_entropy(distances, points.shape[1], len(points))


@functools.lru_cache(64)
def _of_normal(count: int, width: int) -> float:
    """The estimate on a draw of N(0, I), less what the draw's own rows say of its entropy by chance."""
    z = np.random.default_rng([count, width]).standard_normal((count, width))
    queries = np.arange(0, count, max(1, count // _QUERIES))
    chance = (np.square(z[queries]).sum(1).mean() - width) / 2
    return _of(z) - chance
