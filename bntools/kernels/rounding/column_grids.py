"""GPTQ's feedback where each column of W has min-max grids of its own, taken when its turn comes: groups per IC.

Matrices lie as in `feedback`, a column of W contiguous: [in, out]; groups are runs of a column.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bntools.kernels.rounding.feedback import LAZY, _jit, each

_SMALLEST = np.float32(2.0**-14)  # normal float16
_LARGEST = np.float32(65520.0)  # what rounds to more than the largest float16
_SEGMENT = 256  # rows dealt to a thread, about


def feedback(
    w: Tensor, factor: Tensor, width: int, bits: int, symmetric: bool, threads: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes uint8 [in, out], scales and zeros float32 [in, groups], and values [in, out] of the columns of W.

    w: [in, out] float32, columns of W in the order of the factor, upper U with H^-1 = U^T U. The grid of a group of
    `width` rows is the min-max one of its compensated values, its scale rounded to float16 where all scales of the
    column keep their digits in it.
    """
    rows = w.clone(memory_format=torch.contiguous_format)
    count, outs = rows.shape
    groups = -(-outs // width)
    codes = torch.empty(count, outs, dtype=torch.uint8)
    scales, zeros = torch.empty(count, groups), torch.empty(count, groups)
    factor = factor.contiguous()
    for start in range(0, count, LAZY):
        stop = min(start + LAZY, count)
        errors = torch.empty(stop - start, outs)
        arrays = [x.numpy() for x in (rows, factor, codes, scales, zeros, errors)]
        step = max(1, _SEGMENT // width)

        def part(low: int, high: int, a: list[np.ndarray] = arrays, s: int = start, e: int = stop) -> None:
            _feed(*a, s, e, low, high, width, np.float32(2**bits - 1), symmetric)

        each(groups, threads, part, step)
        rows[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return codes, scales, zeros, rows


@_jit
def _feed(rows, factor, codes, scales, zeros, errors, start, stop, low, high, width, top, symmetric):
    """Columns start to stop, groups low to high of each."""
    first, last = low * width, min(high * width, rows.shape[1])
    for at in range(start, stop):
        column, error = rows[at], errors[at - start]
        s, z = scales[at, low:high], zeros[at, low:high]
        _grids(column, s, z, low, width, top, symmetric)
        inverse = np.float32(1.0) / factor[at, at]
        for group in range(high - low):
            for r in range((low + group) * width, min((low + group + 1) * width, last)):
                code = min(max(np.rint(column[r] / s[group]) + z[group], np.float32(0.0)), top)
                codes[at, r] = np.uint8(code)
                value = (code - z[group]) * s[group]
                error[r] = (column[r] - value) * inverse
                column[r] = value
        for k in range(at + 1, stop):
            u, other = factor[at, k], rows[k]
            for r in range(first, last):
                other[r] -= u * error[r]


@_jit
def _grids(column, s, z, low, width, top, symmetric):
    """Scales and zeros of some groups of a column."""
    for group in range(len(s)):
        begin = (low + group) * width
        smallest = largest = column[begin]
        for r in range(begin, min(begin + width, len(column))):
            smallest, largest = min(smallest, column[r]), max(largest, column[r])
        s[group] = _scale(smallest, largest, top, symmetric)
        z[group] = smallest
    for group in range(len(s)):
        half = _half(s[group])
        if abs(half - s[group]) <= s[group] * np.float32(2.0**-10):
            s[group] = half
        if symmetric:
            z[group] = (top + np.float32(1.0)) / 2
        else:
            z[group] = min(max(np.rint(-min(z[group], np.float32(0.0)) / s[group]), np.float32(0.0)), top)


@_jit
def _scale(smallest, largest, top, symmetric):
    if smallest == largest:
        return abs(smallest) if smallest != 0 else np.float32(1.0)
    if symmetric:
        return max(-smallest, largest) * (np.float32(2.0) / top)
    return (max(largest, np.float32(0.0)) - min(smallest, np.float32(0.0))) / top


@_jit
def _half(x):
    """x > 0 rounded to float16, halves to even; what float16 does not reach becomes infinite."""
    if x >= _LARGEST:
        return np.float32(np.inf)
    step = np.float32(2.0**-24)
    if x >= _SMALLEST:
        step = np.float32(2.0 ** (np.floor(np.log2(x)) - 10))
        if x >= step * np.float32(2048.0):
            step *= np.float32(2.0)
        elif x < step * np.float32(1024.0):
            step *= np.float32(0.5)
    return np.rint(x / step) * step
