"""Levels of transformed keys and values: chosen for their error and their price in bits, and turned back.

Columns are tokens, rows are coordinates. The class of a coordinate plus that of a token names the table of prices, as
it names the table of the entropy coder (`kernels.entropy.rans`).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.entropy import rans

Floats = NDArray[np.float32]
Ints = NDArray[np.int16]
LARGEST = 30_000
"""Level: an escaped one is two bytes."""
CENTRES = 3
"""Reconstruction points of a class: of level 1, of level 2, and the shift of all beyond."""
_jit: Any = numba.njit(cache=True, nogil=True, error_model="numpy")


def code_lengths(frequencies: NDArray[np.uint16]) -> Floats:
    """Bits of a level of each size under each table [64, 129]: the dearer of its signs; the last is the escape."""
    f = frequencies.astype(np.float64)
    escape = rans.PRECISION + 16 - np.log2(f[:, rans.ESCAPE :])
    bits = np.where(f > 0, rans.PRECISION - np.log2(np.maximum(f, 1)), escape)
    middle = rans.LIMIT
    sizes = np.arange(rans.LIMIT + 1)
    both = np.maximum(bits[:, middle + sizes], bits[:, middle - sizes])
    return np.concatenate([both, escape], 1).astype(np.float32)


@_jit
def _price(size, price, k):  # pragma: no cover - compiled
    return price[k, min(size, 128)]


@_jit
def choose(y, steps, row_class, col_class, price, levels):  # pragma: no cover - compiled
    """Levels [cols, rows] of least (y / step - q)^2 + price among the nearest, the next towards 0, and 0.

    y [cols, rows]; steps [cols, 2]: of a token's keys, the first half of its rows, and of its values; price [64, 129].
    """
    half = y.shape[1] // 2
    for col in range(y.shape[0]):
        for row in range(y.shape[1]):
            x = y[col, row] / steps[col, 0 if row < half else 1]
            x = min(max(x, np.float32(-LARGEST)), np.float32(LARGEST))
            k = min(max(np.int64(row_class[row]) + np.int64(col_class[col]), 0), 63)
            place = abs(x)
            near = np.int64(np.rint(place))
            best, least = near, (place - near) ** 2 + _price(near, price, k)
            if near > 0:
                inner = near - 1
                other = (place - inner) ** 2 + _price(inner, price, k)
                if other < least:
                    best, least = inner, other
                if place * place + price[k, 0] < least:
                    best = 0
            levels[col, row] = best if x >= 0 else -best


@_jit
def restore(levels, steps, row_class, col_class, centres, y):  # pragma: no cover - compiled
    """y [cols, rows] of levels: step, gain and centre of the level's cell. centres [64, 5]: as `centres_of`, gains."""
    half = y.shape[1] // 2
    for col in range(y.shape[0]):
        for row in range(y.shape[1]):
            q = levels[col, row]
            if q == 0:
                y[col, row] = 0
                continue
            k = min(max(np.int64(row_class[row]) + np.int64(col_class[col]), 0), 63)
            size = abs(np.int64(q))
            at = centres[k, size - 1] if size < 3 else size + centres[k, 2]
            which = 0 if row < half else 1
            y[col, row] = (at if q > 0 else -at) * steps[col, which] * centres[k, 3 + which]


@_jit
def count(levels, y, steps, row_class, col_class, counts, sums):  # pragma: no cover - compiled
    """Add how often each symbol occurs under each table [64, 256], and the sizes that became level 1, 2 and more.

    sums [64, 3, 2]: in steps, number and total of |y / step|, of the last less the level.
    """
    half = y.shape[1] // 2
    for col in range(y.shape[0]):
        for row in range(y.shape[1]):
            q = np.int64(levels[col, row])
            k = min(max(np.int64(row_class[row]) + np.int64(col_class[col]), 0), 63)
            counts[k, q + 127 if -127 <= q <= 127 else 255] += 1
            if q != 0:
                size = abs(q)
                at = min(size, 3) - 1
                place = abs(y[col, row]) / steps[col, 0 if row < half else 1]
                sums[k, at, 0] += 1
                sums[k, at, 1] += place if size < 3 else place - size


def centres_of(sums: NDArray[np.float64], weight: float = 8.0) -> Floats:
    """Reconstruction points [64, 3] from `count`, drawn to the middle of the cell by so many tokens there; gains 1."""
    middle = np.array([1.0, 2.0, 0.0])
    points = (sums[..., 1] + weight * middle) / (sums[..., 0] + weight)
    return np.concatenate([points, np.ones((len(points), 2))], 1).astype(np.float32)


@_jit
def agreement(y, restored, steps, row_class, col_class, sums):  # pragma: no cover - compiled
    """Add y^2, y times the restored y, and its square, in squared steps, to sums [64, 2, 3] by class and half."""
    half = y.shape[1] // 2
    for col in range(y.shape[0]):
        for row in range(y.shape[1]):
            k = min(max(np.int64(row_class[row]) + np.int64(col_class[col]), 0), 63)
            which = 0 if row < half else 1
            a = np.float64(y[col, row] / steps[col, which])
            b = np.float64(restored[col, row] / steps[col, which])
            sums[k, which, 0] += a * a
            sums[k, which, 1] += a * b
            sums[k, which, 2] += b * b


def gains(sums: NDArray[np.float64], averaged: tuple[float, float]) -> Floats:
    """Gains [64, 2] of restored keys and values of which so many are averaged by attention.

    The centre of a cell has the least error of a single token, and is too small by the share of its error in the
    variance: that part of the error is the same for all tokens, so a mean over n of them does not lessen it. With
    b the slope of restored on true and u the variance beside it, g = b / (b^2 + u / n) is least for the mean of n.
    """
    total = np.maximum(sums[..., 0], 1e-12)
    slope = sums[..., 1] / total
    beside = np.maximum(sums[..., 2] / total - slope**2, 0)
    n = np.array(averaged)[None]
    result = slope / np.maximum(slope**2 + beside / n, 1e-6)
    enough = (sums[..., 0] > 16) & (slope > 0.01)
    return np.where(enough, np.clip(result, 1.0, 8.0), 1.0).astype(np.float32)


def two_sided(counts: NDArray[np.int64], weight: float = 16.0) -> NDArray[np.int64]:
    """Counts of symbols [64, 256] with so many more of a two-sided exponential of the class's mean, times 64.

    A class that the calibration text left empty, or a size it did not show, so has a price.
    """
    sizes = np.abs(np.arange(-rans.LIMIT, rans.LIMIT + 1))
    mean = 2.0 ** ((np.arange(rans.CLASSES) - 24) / 4)  # as step_classes has them
    seen = counts[:, :-1].sum(1)
    own = (counts[:, :-1] * sizes).sum(1) / np.maximum(seen, 1)
    mean = np.where(seen > 64, np.maximum(own, 1e-3), mean)[:, None]
    tail = np.exp(-sizes[None] / np.maximum(mean, 0.05))
    tail *= weight / tail.sum(1, keepdims=True)
    result = np.zeros(counts.shape, np.int64)
    result[:, :-1] = np.rint(64 * (counts[:, :-1] + tail))
    result[:, -1] = 64 * counts[:, -1] + 4
    result[:, rans.LIMIT] = np.maximum(result[:, rans.LIMIT], 1)
    return result
