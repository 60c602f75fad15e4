"""A stacked weight in memory: levels of the base and bits of the planes, made into rows or multiplied as they are.

Eight weights of a row are a word of codes and a byte of each plane, so a row is unpacked by words of 64 bits, a
byte a weight, and only then becomes numbers. Little-endian machines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from bntools.kernels.groups_numba import share
from bntools.kernels.levels import Levels, expand
from bntools.kernels.scalar import Floats, _jit

_THREAD = 1 << 18  # weights worth a thread of their own
_summed: Any = numba.njit(
    cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy"
)


class Scales(NamedTuple):
    """What a matrix multiplies its levels by: float32 row [out], col [in], shrink [64]; classes int16 [out], [in]."""

    row: Floats
    col: Floats
    row_class: NDArray[np.int16]
    col_class: NDArray[np.int16]
    shrink: Floats


class Stacked(NamedTuple):
    """A weight [out, in]: (q + sum_l (b_l - 1/2) 2^-l) * ((row * col) * shrink[class]).

    bits [n, ceil(in / 8)] uint8: rows of planes; plane l, from 0 on, of a row is bits[first[row] + l * stride] and
    there for l < depth[row]. first: int32, depth: uint8, [out].
    """

    levels: Levels
    scales: Scales
    bits: NDArray[np.uint8]
    first: NDArray[np.int32]
    stride: int
    depth: NDArray[np.uint8]


def rows(w: Stacked, which: NDArray[np.integer], out: Floats | None = None) -> Floats:
    """Some rows [n, in] of a weight, in `out` if given; bit for bit those of `rows_reference`."""
    out = np.empty((len(which), w.levels.cols), np.float32) if out is None else out
    _rows(*w.levels, *w.scales, w.bits, w.first, w.stride, w.depth, which.astype(np.int64), out)
    return out


def product(w: Stacked, x: Floats) -> Floats:
    """y [out] = W x of one vector x [in] float32, without ever holding W, on torch's number of threads.

    Where shrinks are not all 1, x is scaled for every class of rows that occurs. Sums are float32, each row's in an
    order that does not depend on the number of threads.
    """
    scaled, kind = _scaled(w.scales, x)
    out = np.empty(w.levels.rows, np.float32)

    def some(first: int, last: int) -> None:
        _product(*w.levels, w.scales.row, w.bits, w.first, w.stride, w.depth, scaled, kind, out, first, last)

    workers = min(w.levels.rows * w.levels.cols // _THREAD, w.levels.rows, torch.get_num_threads())
    if workers > 1:
        share(workers, w.levels.rows, some)
    else:
        some(0, w.levels.rows)
    return out


def _scaled(scales: Scales, x: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """x * col * shrink for every class of rows [classes, in], and the class of each row."""
    if (scales.shrink == 1).all():
        return (x * scales.col)[None], np.zeros(len(scales.row), np.int32)
    classes, kind = np.unique(scales.row_class, return_inverse=True)
    shrink = scales.shrink[np.clip(classes[:, None].astype(int) + scales.col_class, 0, 63)]
    return (x * (scales.col * shrink)).astype(np.float32), kind.astype(np.int32)


def rows_reference(w: Stacked, which: NDArray[np.integer]) -> Floats:
    """The specification of `rows`."""
    levels, found = expand(w.levels), []
    for row in which:
        multiple = levels[row].astype(np.float32)
        for plane in range(w.depth[row]):
            line = w.bits[w.first[row] + plane * w.stride]
            up = np.unpackbits(line, bitorder="little")[: w.levels.cols].astype(np.float32)
            multiple += (up - np.float32(0.5)) * np.float32(0.5**plane) / np.float32(2)
        classes = w.scales.row_class[row].astype(int) + w.scales.col_class
        shrink = w.scales.shrink[np.clip(classes, 0, 63)]
        found.append(multiple * (w.scales.row[row] * w.scales.col * shrink))
    return np.stack(found) if found else np.empty((0, w.levels.cols), np.float32)


@_jit
def _codes(words, bits, codes):  # pragma: no cover - compiled
    """A byte a code: eight in each of codes [ceil(in / 8)] uint64."""
    if bits == 4:
        for at in range(codes.shape[0]):
            x = np.uint64(words[at])
            x = (x | x << np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
            x = (x | x << np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
            codes[at] = (x | x << np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    else:
        for at in range(codes.shape[0]):
            codes[at] = np.uint64(words[2 * at]) | np.uint64(words[2 * at + 1]) << np.uint64(32)


@_jit
def _fractions(bits, first, stride, depth, found):  # pragma: no cover - compiled
    """The planes of a row as one number a weight, b_1 the highest bit; a byte each, found [ceil(in / 8)] uint64."""
    found[:] = np.uint64(0)
    for plane in range(depth):
        line = bits[first + plane * stride]
        for at in range(found.shape[0]):
            x = np.uint64(line[at])
            x = (x | x << np.uint64(28)) & np.uint64(0x0000000F0000000F)
            x = (x | x << np.uint64(14)) & np.uint64(0x0003000300030003)
            x = (x | x << np.uint64(7)) & np.uint64(0x0101010101010101)
            found[at] = found[at] + found[at] + x


@_jit
def _multiples(codes, fractions, half, depth, line):  # pragma: no cover - compiled
    """q + (f + 1/2) 2^-p - 1/2 of each weight of a row, exact."""
    q, f = codes.view(np.uint8), fractions.view(np.uint8)
    scale = np.float32(1) / np.float32(1 << depth)
    offset = np.float32(0.5) * scale - np.float32(0.5) - np.float32(half)
    for j in range(line.shape[0]):
        line[j] = np.float32(q[j]) + (np.float32(f[j]) * scale + offset)


@_jit
def _rows(
    words, bits, cols, start, col, value, row_scale, col_scale, row_class, col_class, shrink, planes, first, stride,
    depth, which, out,
):  # fmt: skip  # pragma: no cover - compiled
    codes, fractions = np.empty(-(-cols // 8), np.uint64), np.empty(-(-cols // 8), np.uint64)
    plain = True  # whether every shrink is 1
    for k in range(shrink.shape[0]):
        plain = plain and shrink[k] == 1
    for at in range(which.shape[0]):
        row, line = which[at], out[at]
        _codes(words[row], bits, codes)
        _fractions(planes, np.int64(first[row]), stride, np.int64(depth[row]), fractions)
        _multiples(codes, fractions, 1 << (bits - 1), depth[row], line)
        for k in range(start[row], start[row + 1]):
            line[col[k]] += np.float32(value[k])
        scale, own = row_scale[row], np.int32(row_class[row])
        if plain:
            for j in range(cols):
                line[j] *= scale * col_scale[j]
        else:
            for j in range(cols):
                k = min(max(own + np.int32(col_class[j]), np.int32(0)), np.int32(63))
                line[j] *= scale * col_scale[j] * shrink[np.uint32(k)]


@_summed
def _dot(q, f, half, planes, x):  # pragma: no cover - compiled
    """Sum of ((q - half) 2^p + f) x, f of p planes."""
    total = np.float32(0)
    for j in range(x.shape[0]):
        total += np.float32(((np.int32(q[j]) - half) << planes) + np.int32(f[j])) * x[j]
    return total


@_summed
def _product(
    words,
    bits,
    cols,
    start,
    col,
    value,
    row_scale,
    planes,
    first,
    stride,
    depth,
    scaled,
    kind,
    out,
    begin,
    end,
):  # pragma: no cover - compiled
    codes, fractions = np.empty(-(-cols // 8), np.uint64), np.empty(-(-cols // 8), np.uint64)
    q, f, half = codes.view(np.uint8), fractions.view(np.uint8), np.int32(1 << (bits - 1))
    sums = np.empty(scaled.shape[0], np.float32)
    for k in range(scaled.shape[0]):
        total = np.float32(0)
        for j in range(cols):
            total += scaled[k, j]
        sums[k] = total
    for row in range(begin, end):
        x, p = scaled[kind[row]], np.int32(depth[row])
        _codes(words[row], bits, codes)
        _fractions(planes, np.int64(first[row]), stride, np.int64(depth[row]), fractions)
        total = _dot(q, f, half, p, x)
        scale = np.float32(1) / np.float32(1 << p)
        total = total * scale + (np.float32(0.5) * scale - np.float32(0.5)) * sums[kind[row]]
        for k in range(start[row], start[row + 1]):
            total += np.float32(value[k]) * x[col[k]]
        out[row] = row_scale[row] * total
