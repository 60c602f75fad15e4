"""Mutual information from nearest neighbours, in one dimension with classes and in two dimensions."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def digamma_table(n: int) -> Floats:
    """psi(0), ..., psi(n), psi(0) not used."""
    return np.concatenate(
        [[0.0], -0.5772156649015329 + np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n))])]
    )


def knn_class_information(columns: Floats, classes: NDArray[np.int64], k: int = 3) -> Floats:
    """I(x; class) of each column [p, n] (Ross, PLoS ONE 2014), not below 0; classes [n] from 0 on.

    Rows whose class has one member are left out, as scikit-learn does.
    """
    counts = np.bincount(classes)
    rows = counts[classes] > 1
    columns, classes = np.ascontiguousarray(columns[:, rows]), classes[rows]
    result = np.empty(len(columns))
    _class_loop(
        columns,
        classes,
        np.bincount(classes, minlength=len(counts)),
        k,
        digamma_table(len(classes) + 1),
        result,
    )
    return np.maximum(result, 0)


def knn_information(columns: Floats, outcome: Floats, k: int = 3) -> Floats:
    """I(x; y) of each column [p, n] (Kraskov et al., Phys. Rev. E 2004, first estimator), not below 0."""
    result = np.empty(len(columns))
    _pair_loop(np.ascontiguousarray(columns), outcome, k, digamma_table(len(outcome) + 1), result)
    return np.maximum(result, 0)


@numba.njit(cache=True, nogil=True)
def _within(values: Floats, center: float, radius: float) -> Any:
    """How many sorted values lie at most `radius` from the centre."""
    low = np.searchsorted(values, center - radius, side="left")
    high = np.searchsorted(values, center + radius, side="right")
    while (
        low > 0 and center - values[low - 1] <= radius
    ):  # the sums above are rounded, the differences decide
        low -= 1
    while center - values[low] > radius:
        low += 1
    while high < values.size and values[high] - center <= radius:
        high += 1
    while values[high - 1] - center > radius:
        high -= 1
    return high - low


@numba.njit(cache=True, nogil=True)
def _distance(values: Floats, at: int, k: int) -> float:
    """Distance from the sorted value at `at` to its k-th nearest other one."""
    low, high, center = at - 1, at + 1, values[at]
    distance = 0.0
    for _ in range(k):
        left = center - values[low] if low >= 0 else np.inf
        right = values[high] - center if high < values.size else np.inf
        distance = min(left, right)
        if left <= right:
            low -= 1
        else:
            high += 1
    return distance


@numba.njit(cache=True, nogil=True)
def _class_loop(
    columns: Floats,
    classes: NDArray[np.int64],
    counts: NDArray[np.int64],
    k: int,
    psi: Floats,
    result: Floats,
) -> None:
    n = classes.size
    for column in range(len(columns)):
        x = columns[column]
        ordered = np.sort(x)
        total = 0.0
        for c in range(counts.size):
            if counts[c] == 0:
                continue
            own = np.sort(x[classes == c])
            near = min(k, counts[c] - 1)
            for i in range(own.size):
                radius = np.nextafter(_distance(own, i, near), 0.0)
                total -= psi[_within(ordered, own[i], radius)]
            total += own.size * (psi[near] - psi[counts[c]])
        result[column] = psi[n] + total / n


@numba.njit(cache=True, nogil=True)
def _pair_loop(columns: Floats, y: Floats, k: int, psi: Floats, result: Floats) -> None:
    n = y.size
    sorted_y = np.sort(y)
    nearest = np.empty(k)
    for column in range(len(columns)):
        x = columns[column]
        sorted_x = np.sort(x)
        total = 0.0
        for i in range(n):
            nearest[:] = np.inf
            for j in range(n):
                distance = max(abs(x[j] - x[i]), abs(y[j] - y[i]))
                if distance < nearest[k - 1] and j != i:
                    at = k - 1
                    while at > 0 and nearest[at - 1] > distance:
                        nearest[at] = nearest[at - 1]
                        at -= 1
                    nearest[at] = distance
            radius = np.nextafter(nearest[k - 1], 0.0)
            total += psi[_within(sorted_x, x[i], radius)] + psi[_within(sorted_y, y[i], radius)]
        result[column] = psi[n] + psi[k] - total / n
