"""Chatterjee's rank correlation of many columns with one outcome, from the order of each column's rows."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


def chatterjee(orders: NDArray[np.int64], outcome: NDArray[np.float64]) -> NDArray[np.float64]:
    """xi(x, y) of each column (Chatterjee, JASA 2021): 1 - n sum |r_{i+1} - r_i| / (2 sum l_i (n - l_i)).

    orders [p, n]: rows of each column in ascending order. outcome [rows]; its ties are allowed: r_i counts the values
    up to y_i, l_i those from y_i on. Not symmetric: how far y is a function of x.
    """
    n = orders.shape[1]
    values = np.sort(outcome[orders[0]]) if len(orders) else outcome[:0]
    upto = np.searchsorted(values, outcome, side="right").astype(np.int64)
    onwards = n - np.searchsorted(values, values, side="left").astype(np.float64)
    scale = 2 * float((onwards * (n - onwards)).sum()) if n else 1.0
    sums = np.empty(len(orders))
    _rank_steps(orders, upto, sums)
    return 1 - n * sums / scale


@numba.njit(cache=True, nogil=True)
def _rank_steps(orders: NDArray[np.int64], ranks: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
    for column in range(len(orders)):
        total, last = 0, ranks[orders[column, 0]]
        for k in range(1, orders.shape[1]):
            rank = ranks[orders[column, k]]
            total += abs(rank - last)
            last = rank
        sums[column] = total
