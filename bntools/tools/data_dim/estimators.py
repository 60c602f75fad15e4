"""Estimators of the intrinsic dimension from nearest-neighbour distances, each a pure function of them.

Everywhere r [M, K] are the ascending distances of M points to their K nearest others, none of them zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def twonn(r: Floats) -> float:
    """Maximum likelihood of the ratio of the second to the first distance, unbiased.

    ln(r_2 / r_1) is exponential with rate d (Facco et al. 2017, eq. 3): d = (M - 1) / sum ln(r_2 / r_1), the
    factor M - 1 of Denti et al. 2022. No ratio is discarded.
    """
    return float(np.divide(len(r) - 1, np.log(r[:, 1] / r[:, 0]).sum()))  # infinite where all are tied


def twonn_fit(r: Floats, discard: float = 0.1) -> float:
    """Slope through the origin of -ln(1 - F) against ln(r_2 / r_1), the largest ratios left out (Facco et al. 2017).

    F is i / M for the i-th smallest ratio, i from 1; a share of `discard`, 0.1 in the paper, is left out.
    """
    ratios = np.sort(np.log(r[:, 1] / r[:, 0]))
    kept = int(len(ratios) * (1 - discard))
    x, y = ratios[:kept], -np.log1p(-np.arange(1, kept + 1) / len(ratios))
    return float(x @ y / (x @ x))


def mle(r: Floats, k: int = 20) -> float:
    """Maximum likelihood from the k nearest, inverses averaged over points.

    1 / d = mean over points of 1 / (k - 1) sum_{j<k} ln(r_k / r_j): Levina and Bickel 2005, eq. 8, averaged as
    MacKay and Ghahramani 2005 correct it. Levina and Bickel average d itself, which is too large for small k.
    """
    return 1 / float(mean_log_ratios(r, k).mean())


def mean_log_ratios(r: Floats, k: int) -> Floats:
    """1 / (k - 1) sum_{j<k} ln(r_k / r_j) for each point [M]; its mean is 1 / d where the density is constant."""
    logs = np.log(r[:, :k])
    return logs[:, -1] - logs[:, :-1].mean(1)


def gride(r: Floats, first: int = 1, second: int = 2) -> float:
    """Maximum likelihood of the ratio of the distances of two ranks (Denti et al. 2022, eq. 9).

    With x = ln(r_n2 / r_n1) the score n / d + (n2 - n1 - 1) sum x / (1 - exp(-d x)) - (n2 - 1) sum x falls in d; its
    root is found by bisection in ln d. Points with x = 0 tell nothing and are left out.
    """
    x = np.log(r[:, second - 1] / r[:, first - 1])
    x = x[x > 0]
    if len(x) == 0:
        return float("nan")
    low, high = 1e-3, 1e6
    while high / low > 1 + 1e-9:
        d = float(np.sqrt(low * high))
        inner = float((x / -np.expm1(-d * x)).sum())
        if len(x) / d + (second - first - 1) * inner > (second - 1) * float(x.sum()):
            low = d
        else:
            high = d
    return float(np.sqrt(low * high))


def correlation(counts: NDArray[np.int64], radii: Floats) -> float:
    """Slope of the logarithm of the correlation integral between two radii (Grassberger and Procaccia 1983).

    counts [M, 2]: points within each of the two radii [2] of each point. NaN where the smaller holds none.
    """
    inner, outer = counts.sum(0)
    return float(np.log(outer / inner) / np.log(radii[1] / radii[0])) if inner > 0 else float("nan")


def local_rank(eigenvalues: Floats, alpha: float = 0.05) -> Floats:
    """Number of eigenvalues [M, n] above `alpha` of the largest, for each neighbourhood (Fukunaga and Olsen 1971)."""
    return (eigenvalues > alpha * eigenvalues.max(1, keepdims=True)).sum(1).astype(np.float64)


def squared_cosines(points: Floats, neighbours: NDArray[np.int64]) -> Floats:
    """Sum of squared cosines between the differences of disjoint pairs of neighbours, and their number, [M, 2].

    neighbours [M, k]: indices, k even. In the plane of dimension d, whatever the distances, the mean is 1 / d if
    directions are uniform. Differences of neighbours, not of a neighbour and the point, so that a point at the edge,
    all of whose neighbours lie on one side, counts like any other. A pair at one place has no direction, and no part.
    """
    blocks = []
    for chunk in np.array_split(neighbours, max(1, neighbours.size * points.shape[1] // 4_000_000)):
        local = points[chunk]
        apart = local[:, 0::2] - local[:, 1::2]
        length = np.sqrt(np.square(apart).sum(2, keepdims=True))
        apart = np.divide(apart, length, out=np.zeros_like(apart), where=length > 0)
        i, j = np.triu_indices(apart.shape[1], 1)
        squares = np.square((apart @ apart.transpose(0, 2, 1))[:, i, j])
        there = (length[:, i, 0] > 0) & (length[:, j, 0] > 0)
        blocks.append(np.stack([squares.sum(1), there.sum(1)], 1))
    return np.concatenate(blocks)


def local_eigenvalues(points: Floats, neighbours: NDArray[np.int64]) -> Floats:
    """Eigenvalues [M, k], ascending, of the covariance of each neighbourhood's points, indices [M, k]."""
    blocks = []
    for chunk in np.array_split(neighbours, max(1, neighbours.size * points.shape[1] // 4_000_000)):
        local = points[chunk]
        local = local - local.mean(1, keepdims=True)
        gram = local @ local.transpose(0, 2, 1)
        blocks.append(
            np.linalg.eigvalsh(gram / np.maximum(np.trace(gram, axis1=1, axis2=2), 1e-300)[:, None, None])
        )
    return np.concatenate(blocks)
