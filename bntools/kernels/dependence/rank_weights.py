"""The weights of the ranks 1 to n on a grid of normal scores: one small matrix that serves every column.

Mutual information does not change when a column is transformed monotonically. So each column becomes the normal scores
of its ranks, and the kernel that smears a sample over grid points depends on its rank alone.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH = 8
"""Grid points that a sample touches at most, and floats of a vector register."""
BANDWIDTH = 0.7  # times 1.06 n^-1/5, the normal reference rule: ranks planted effects best of .35 to 1.4
_SUPPORT = 6.5  # grid steps that the kernel spans: with the step's own width it touches WIDTH points at most


class RankWeights(NamedTuple):
    """Weights of rank k: `weight` [n, WIDTH] float32, rows of sum 1, on the grid points from `first` [n] on.

    points: size of the grid. entropy: of the sum of all rows over n, the marginal of every column, in nats.
    """

    first: NDArray[np.int32]
    weight: NDArray[np.float32]
    points: int
    entropy: float


def normal_scores(n: int) -> NDArray[np.float64]:
    """Quantiles of the normal law at (k - 1/2) / n for k = 1 to n."""
    law = NormalDist()
    return np.array([law.inv_cdf((k + 0.5) / n) for k in range(n)])


@lru_cache(maxsize=64)
def kernel_weights(n: int, bandwidth: float = BANDWIDTH) -> RankWeights:
    """Epanechnikov weights of the normal scores of n ranks; bandwidth: in units of 1.06 n^-1/5."""
    scores = normal_scores(n)
    reach = (
        np.sqrt(5.0) * 1.06 * bandwidth * n**-0.2
    )  # of the kernel whose standard deviation is the bandwidth
    step = 2 * reach / _SUPPORT
    low = scores[0] - reach
    points = int(np.ceil((scores[-1] + reach - low) / step)) + WIDTH
    first = np.ceil((scores - reach - low) / step).astype(np.int32)
    grid = low + step * (first[:, None] + np.arange(WIDTH))
    weight = np.maximum(1 - ((grid - scores[:, None]) / reach) ** 2, 0.0)
    return _normalised(first, weight, points)


@lru_cache(maxsize=64)
def bin_weights(n: int, bins: int) -> RankWeights:
    """Weight 1 on one of `bins` bins of equal counts."""
    weight = np.zeros((n, WIDTH))
    weight[:, 0] = 1
    return _normalised((np.arange(n) * bins // n).astype(np.int32), weight, bins + WIDTH - 1)


def group_weights(counts: NDArray[np.int64]) -> RankWeights:
    """Weight 1 on the value, of a column whose sorted values stand `counts` times each."""
    first = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    weight = np.zeros((len(first), WIDTH))
    weight[:, 0] = 1
    return _normalised(first, weight, len(counts) + WIDTH - 1)


def _normalised(first: NDArray[np.int32], weight: NDArray[np.float64], points: int) -> RankWeights:
    weight = weight / weight.sum(1, keepdims=True)
    marginal = np.zeros(points)
    np.add.at(marginal, first[:, None] + np.arange(WIDTH), weight / len(first))
    positive = marginal[marginal > 0]
    return RankWeights(first, weight.astype(np.float32), points, float(-(positive * np.log(positive)).sum()))
