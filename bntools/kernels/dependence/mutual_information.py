"""Mutual information of many columns with one outcome, from the order of each column's rows.

Per column of n rows: n WIDTH additions for classes, n WIDTH^2 for a continuous outcome, and one logarithm a cell. The
marginals are those of the ranks, the same for all columns: I = sum J ln J + H(x) + H(y).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.dependence.rank_weights import WIDTH, RankWeights

Orders = NDArray[np.int64]
Scores = NDArray[np.float64]

_LN2 = float(np.log(2.0))
_PAD = 64  # cells: the sum of logarithms runs over whole registers


def _log2_polynomial() -> tuple[float, ...]:
    """Coefficients of log2 on [1, 2], degree 7, exact at both ends; error 4e-7."""
    x = 1.5 + 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    base = np.polynomial.Polynomial.fit(x, (np.log2(x) - (x - 1)) / ((x - 1) * (2 - x)), 5).convert().coef
    return tuple(float(c) for c in base)


_C0, _C1, _C2, _C3, _C4, _C5 = _log2_polynomial()


def class_information(orders: Orders, classes: NDArray[np.int64], x: RankWeights) -> Scores:
    """I(x; class) in nats of each column.

    orders [p, n]: rows of each column from its smallest value to its largest. classes [rows]: from 0 on.
    x: weights of n ranks. Deviation from the mean of a density: none; values below 0 are rounding.
    """
    count = int(classes.max()) + 1
    shares = np.bincount(classes[orders[0]], minlength=count) / orders.shape[1] if len(orders) else np.ones(1)
    entropy = x.entropy - float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
    sums = np.empty(len(orders))
    _class_sums(orders, classes, x.first, x.weight, _padded(count, x.points), sums)
    return sums + entropy


def grid_information(orders: Orders, ranks: NDArray[np.int64], x: RankWeights, y: RankWeights) -> Scores:
    """I(x; y) in nats of each column with a continuous outcome.

    orders [p, n] as in `class_information`. ranks [rows]: rank of each row's outcome, from 0 on.
    """
    sums = np.empty(len(orders))
    _grid_sums(orders, ranks, (x.first, x.weight, y.first, y.weight), _padded(x.points, y.points), sums)
    return sums + x.entropy + y.entropy


def _padded(rows: int, columns: int) -> NDArray[np.float32]:
    """An empty table of counts, its rows a multiple of a register apart, its size one of `_PAD`."""
    stride = -(-columns // WIDTH) * WIDTH
    rows = -(-rows * stride // _PAD) * _PAD // stride + 1
    return np.zeros((rows + -rows % (_PAD // WIDTH), stride), np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _sum_of_logs(table: NDArray[np.float32], scratch: NDArray[np.int32], scale: np.float32) -> Any:
    """sum J ln J with J = table * scale."""
    values = table.reshape(-1)
    bits = values.view(np.int32)
    mantissa = scratch.view(np.float32)
    total = 0.0
    for start in range(0, values.size, 64):
        part = np.float32(0)
        for i in range(start, start + 64):
            values[i] *= scale
        for i in range(start, start + 64):
            scratch[i - start] = (bits[i] & 0x7FFFFF) | 0x3F800000
        for i in range(start, start + 64):
            m = mantissa[i - start]
            p = np.float32(_C4) + m * np.float32(_C5)
            p = np.float32(_C3) + m * p
            p = np.float32(_C2) + m * p
            p = np.float32(_C1) + m * p
            p = np.float32(_C0) + m * p
            log = np.float32((bits[i] >> 23) - 127) + (m - np.float32(1)) * (
                np.float32(1) + (np.float32(2) - m) * p
            )
            part += values[i] * log
        total += part
    return total * _LN2


@numba.njit(cache=True, nogil=True, fastmath=True)
def _class_sums(
    orders: Orders,
    classes: NDArray[np.int64],
    first: NDArray[np.int32],
    weight: NDArray[np.float32],
    table: NDArray[np.float32],
    sums: Scores,
) -> None:
    scratch = np.empty(64, np.int32)
    n = orders.shape[1]
    for column in range(len(orders)):
        table[:] = 0
        for k in range(n):
            c = classes[orders[column, k]]
            g = first[k]
            for i in range(8):
                table[c, g + i] += weight[k, i]
        sums[column] = _sum_of_logs(table, scratch, np.float32(1.0 / n))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _grid_sums(
    orders: Orders, ranks: NDArray[np.int64], weights: tuple, table: NDArray[np.float32], sums: Scores
) -> None:
    first_x, weight_x, first_y, weight_y = weights
    scratch = np.empty(64, np.int32)
    n = orders.shape[1]
    for column in range(len(orders)):
        table[:] = 0
        for k in range(n):
            rank = ranks[orders[column, k]]
            g, h = first_x[k], first_y[rank]
            for i in range(8):
                w = weight_x[k, i]
                if w > 0:
                    for j in range(8):
                        table[g + i, h + j] += w * weight_y[rank, j]
        sums[column] = _sum_of_logs(table, scratch, np.float32(1.0 / n))
