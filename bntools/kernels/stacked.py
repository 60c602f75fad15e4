"""A stacked weight in memory: levels of the base and bits of the planes, made into rows or multiplied as they are.

Eight weights of a row are a word of codes and a byte of each plane, so a row is unpacked by words of 64 bits, a
byte a weight, and only then becomes numbers. Little-endian machines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.levels import Levels, expand
from bntools.kernels.scalar import Floats, _jit


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
            x = np.uint64(line[at]) * np.uint64(0x0101010101010101) & np.uint64(0x8040201008040201)
            x = (x + np.uint64(0x7F7F7F7F7F7F7F7F)) | x  # a byte's highest bit where it is not 0
            found[at] = found[at] + found[at] + ((x >> np.uint64(7)) & np.uint64(0x0101010101010101))


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
    codes, fractions = np.empty((2, -(-cols // 8)), np.uint64)
    plain = True  # whether every shrink is 1
    for k in range(shrink.shape[0]):
        plain = plain and shrink[k] == 1
    for at in range(which.shape[0]):
        row, line = which[at], out[at]
        _codes(words[row], bits, codes)
        _fractions(planes, first[row], stride, depth[row], fractions)
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
