"""Intervals of standard deviations: from the curvature of the deviance, on the scale of their logarithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEP = 1e-3  # of theta and ln sigma in the second differences


class SpreadInterval(NamedTuple):
    """Ends of the intervals of a term's standard deviations; None where it is singular. The last entry: the error's."""

    low: list[float | None]
    high: list[float | None]


def log_intervals(
    deviance: Callable[[Floats, float], float],
    theta: Floats,
    triangles: list[Floats],
    sigma: float,
    level: float,
) -> list[SpreadInterval]:
    """Wald intervals of ln sd of each random effect and of the error, one entry a term and one for the error."""
    from statistics import NormalDist

    at = np.append(theta, np.log(sigma))
    hessian = _hessian(lambda v: deviance(v[:-1], float(v[-1])), at)
    values, vectors = np.linalg.eigh(hessian / 2)
    covariance = (vectors / np.maximum(values, 1e-12)) @ vectors.T
    flat = values[0] <= 1e-8 * values[-1]
    z = NormalDist().inv_cdf((1 + level) / 2)
    result, start = [], 0
    for triangle in triangles:
        low: list[float | None] = []
        high: list[float | None] = []
        places = list(zip(*np.tril_indices(len(triangle)), strict=True))
        for row in range(len(triangle)):
            norm = float(np.linalg.norm(triangle[row]))
            if norm < 1e-4 or flat:
                low.append(None)
                high.append(None)
                continue
            gradient = np.zeros(len(at))
            for offset, (i, j) in enumerate(places):
                if i == row:
                    gradient[start + offset] = triangle[i, j] / norm**2
            gradient[-1] = 1
            error = z * float(np.sqrt(gradient @ covariance @ gradient))
            low.append(sigma * norm * float(np.exp(-error)))
            high.append(sigma * norm * float(np.exp(error)))
        start += len(places)
        result.append(SpreadInterval(low, high))
    error = z * float(np.sqrt(covariance[-1, -1]))
    ends = (sigma * float(np.exp(-error)), sigma * float(np.exp(error)))
    return [*result, SpreadInterval([None if flat else ends[0]], [None if flat else ends[1]])]


def _hessian(function: Callable[[Floats], float], at: Floats) -> Floats:
    """Second differences."""
    n = len(at)
    steps = _STEP * np.eye(n)
    middle = function(at)
    plus, minus = [function(at + step) for step in steps], [function(at - step) for step in steps]
    result = np.empty((n, n))
    for i in range(n):
        result[i, i] = (plus[i] - 2 * middle + minus[i]) / _STEP**2
        for j in range(i):
            both = function(at + steps[i] + steps[j]) + function(at - steps[i] - steps[j])
            result[i, j] = result[j, i] = (both - plus[i] - minus[i] - plus[j] - minus[j] + 2 * middle) / (
                2 * _STEP**2
            )
    return result
