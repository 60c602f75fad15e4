"""Scale and zero of each group by trying many: the least error weighted by the importance of columns."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.rounding.column_grids import _half

Floats = NDArray[np.float32]
# Sums over a group may be taken in any order, the same on every run: several at once.
_jit: Any = numba.njit(
    cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc", "arcp"}, error_model="numpy"
)


def search(
    w: Floats, h: Floats, low: Floats, high: Floats, shrinks: Floats, width: int, bits: int, symmetric: bool,
    scales: Floats, zeros: Floats,
) -> None:  # fmt: skip
    """Replace scales and zeros [rows, groups] where a better grid is found, in place.

    w: [rows, cols]; h >= 0 [cols]; low, high: the ends of each group. Tried are the range of a group times each of
    `shrinks`, with zeros one below, at and one above the middle, scales rounded to float16 where that keeps their
    digits; then, with the best one's codes, the scale of least squares. Never worse than the grid given.
    """
    _search(w, h, low, high, shrinks, width, np.float32(2**bits - 1), symmetric, scales, zeros)


@_jit
def _search(w, h, low, high, shrinks, width, top, symmetric, scales, zeros):
    for row in range(w.shape[0]):
        for group in range(scales.shape[1]):
            start, stop = group * width, min((group + 1) * width, w.shape[1])
            part, weight = w[row, start:stop], h[start:stop]
            s, z = scales[row, group], zeros[row, group]
            error = _error(part, weight, s, z, top)
            best = _tried(part, weight, low[row, group], high[row, group], shrinks, top, symmetric)
            other = _error(part, weight, best[0], best[1], top)
            if other < error:
                s, z, error = best[0], best[1], other
            fitted = _fitted(part, weight, s, z, top)
            if fitted > 0 and _error(part, weight, fitted, z, top) < error:
                s = fitted
            scales[row, group], zeros[row, group] = s, z


@_jit
def _tried(w, h, low, high, shrinks, top, symmetric):
    """The best (scale, zero) among the ranges and positions."""
    full = max(-low, high) * (np.float32(2.0) / top) if symmetric else (high - low) / top
    best, scale, zero = np.float32(np.inf), np.float32(1.0), np.float32(0.0)
    for shrink in shrinks:
        s = _stored(max(shrink * full, np.float32(1e-30)))
        middle = (top + np.float32(1.0)) * np.float32(0.5)
        if not symmetric:
            middle = np.rint((top - (low + high) / s) * np.float32(0.5))
        below = min(max(middle - np.float32(not symmetric), np.float32(0.0)), top)
        at = min(max(middle, np.float32(0.0)), top)
        above = min(max(middle + np.float32(not symmetric), np.float32(0.0)), top)
        a, b, c = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for j in range(len(w)):
            x = w[j] / s
            q = np.rint(x)
            ea = min(max(q, -below), top - below) - x
            eb = min(max(q, -at), top - at) - x
            ec = min(max(q, -above), top - above) - x
            a += h[j] * ea * ea
            b += h[j] * eb * eb
            c += h[j] * ec * ec
        for error, z in ((a, below), (b, at), (c, above)):
            if error * s * s < best:
                best, scale, zero = error * s * s, s, z
    return scale, zero


@_jit
def _error(w, h, s, z, top):
    total = np.float32(0.0)
    for j in range(len(w)):
        x = w[j] / s
        e = min(max(np.rint(x), -z), top - z) - x
        total += h[j] * e * e
    return total * s * s


@_jit
def _fitted(w, h, s, z, top):
    """The scale of least squares for the codes of a grid; 0 where there is none."""
    size, product = np.float32(0.0), np.float32(0.0)
    for j in range(len(w)):
        code = min(max(np.rint(w[j] / s), -z), top - z)
        size += h[j] * code * code
        product += h[j] * code * w[j]
    if size <= 0 or product <= 0:
        return np.float32(0.0)
    return _stored(product / size)


@_jit
def _stored(x):
    """A scale rounded to float16 where that keeps its digits."""
    half = _half(x)
    return half if abs(half - x) <= x * np.float32(2.0**-10) else x
