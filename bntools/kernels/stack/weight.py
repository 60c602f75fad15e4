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

from bntools.kernels.entropy.unbounded_levels import Floats, _jit
from bntools.kernels.grouped.cpu import share
from bntools.kernels.stack.compact_levels import CompactLevels, expand

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
    """A weight [out, in]: (q + sum_l (b_l - 1/2) w_l) * ((row * col) * shrink[class]).

    bits [n, ceil(in / 8)] uint8: lines of planes; line l, from 0 on, of a row is bits[first[row] + l * stride] and
    there for l < linked.lines(depth[row], trellis). Plane p, from 0 on, is a line of weight 2^-(p + 1), before
    `trellis` two, the other one of half that weight. first: int32, depth: uint8, [out].
    """

    levels: CompactLevels
    scales: Scales
    bits: NDArray[np.uint8]
    first: NDArray[np.int32]
    stride: int
    depth: NDArray[np.uint8]
    trellis: int


def rows(w: Stacked, which: NDArray[np.integer], out: Floats | None = None) -> Floats:
    """Some rows [n, in] of a weight, in `out` if given; bit for bit those of `rows_reference`."""
    out = np.empty((len(which), w.levels.cols), np.float32) if out is None else out
    _rows(*w.levels, *w.scales, w.bits, w.first, w.stride, w.depth, w.trellis, which.astype(np.int64), out)
    return out


def product(w: Stacked, x: Floats) -> Floats:
    """y [out] = W x of one vector x [in] float32, without ever holding W, on torch's number of threads.

    Where shrinks are not all 1, x is scaled for every class of rows that occurs. Sums are float32, each row's in an
    order that does not depend on the number of threads.
    """
    scaled, kind = _scaled(w.scales, x)
    out = np.empty(w.levels.rows, np.float32)

    def some(first: int, last: int) -> None:
        _product(
            *w.levels,
            w.scales.row,
            w.bits,
            w.first,
            w.stride,
            w.depth,
            w.trellis,
            scaled,
            kind,
            out,
            first,
            last,
        )

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


def line_weights(depth: int, trellis: int) -> list[float]:
    """Of each line of so many planes, in steps."""
    return [0.5 ** (p + 1 + low) for p in range(depth) for low in range(1 + (p < trellis))]


def rows_reference(w: Stacked, which: NDArray[np.integer]) -> Floats:
    """The specification of `rows`."""
    levels, rows = expand(w.levels), []
    for row in which:
        multiple = levels[row].astype(np.float32)
        weights = line_weights(int(w.depth[row]), w.trellis)
        for at, weight in enumerate(weights):
            line = w.bits[w.first[row] + at * w.stride]
            up = np.unpackbits(line, bitorder="little")[: w.levels.cols].astype(np.float32)
            multiple += (up - np.float32(0.5)) * np.float32(weight)
        classes = w.scales.row_class[row].astype(int) + w.scales.col_class
        shrink = w.scales.shrink[np.clip(classes, 0, 63)]
        rows.append(multiple * (w.scales.row[row] * w.scales.col * shrink))
    return np.stack(rows) if rows else np.empty((0, w.levels.cols), np.float32)


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
def _fractions(bits, first, stride, depth, trellis, found):  # pragma: no cover - compiled
    """The planes of a row as one number a weight, in units of 2^-_places; a byte each, found [ceil(in / 8)] uint64."""
    found[:] = np.uint64(0)
    line = first
    for plane in range(depth):
        # the high line of a trellis code, or the first plane after one, is of the weight that the line before had
        _add(bits[line], plane > trellis, found)
        line += stride
        if plane < trellis:
            _add(bits[line], True, found)
            line += stride


@_jit
def _add(line, finer, found):  # pragma: no cover - compiled
    for at in range(found.shape[0]):
        x = np.uint64(line[at])
        x = (x | x << np.uint64(28)) & np.uint64(0x0000000F0000000F)
        x = (x | x << np.uint64(14)) & np.uint64(0x0003000300030003)
        x = (x | x << np.uint64(7)) & np.uint64(0x0101010101010101)
        found[at] = (found[at] << np.uint64(finer)) + x


@_jit
def _places(depth, trellis):  # pragma: no cover - compiled
    """Binary places of the last line."""
    return depth + 1 if 0 < depth <= trellis else depth


@_jit
def _offset(depth, trellis):  # pragma: no cover - compiled
    """What the bits come to where all of them are 0: minus half the sum of the lines' weights."""
    both = min(depth, trellis)
    whole = np.float32(1) - np.float32(1) / np.float32(1 << depth)
    low = np.float32(1) - np.float32(1) / np.float32(1 << both)
    return -(np.float32(0.5) * whole + np.float32(0.25) * low)


@_jit
def _multiples(codes, fractions, half, places, offset, line):  # pragma: no cover - compiled
    """The multiple of each weight of a row, exact."""
    q, f = codes.view(np.uint8), fractions.view(np.uint8)
    scale = np.float32(1) / np.float32(1 << places)
    offset = offset - np.float32(half)
    for j in range(line.shape[0]):
        line[j] = np.float32(q[j]) + (np.float32(f[j]) * scale + offset)


@_jit
def _rows(
    words, bits, cols, start, col, value, row_scale, col_scale, row_class, col_class, shrink, planes, first, stride,
    depth, trellis, which, out,
):  # fmt: skip  # pragma: no cover - compiled
    codes, fractions = np.empty(-(-cols // 8), np.uint64), np.empty(-(-cols // 8), np.uint64)
    plain = True  # whether every shrink is 1
    for k in range(shrink.shape[0]):
        plain = plain and shrink[k] == 1
    for at in range(which.shape[0]):
        row, line = which[at], out[at]
        _codes(words[row], bits, codes)
        deep = np.int64(depth[row])
        _fractions(planes, np.int64(first[row]), stride, deep, trellis, fractions)
        _multiples(codes, fractions, 1 << (bits - 1), _places(deep, trellis), _offset(deep, trellis), line)
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
def _dot(q, f, half, places, x):  # pragma: no cover - compiled
    """Sum of ((q - half) 2^p + f) x, f in units of 2^-p."""
    total = np.float32(0)
    for j in range(x.shape[0]):
        total += np.float32(((np.int32(q[j]) - half) << places) + np.int32(f[j])) * x[j]
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
    trellis,
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
        x, deep = scaled[kind[row]], np.int64(depth[row])
        places = np.int32(_places(deep, trellis))
        _codes(words[row], bits, codes)
        _fractions(planes, np.int64(first[row]), stride, deep, trellis, fractions)
        total = (
            _dot(q, f, half, places, x) / np.float32(1 << places) + _offset(deep, trellis) * sums[kind[row]]
        )
        for k in range(start[row], start[row + 1]):
            total += np.float32(value[k]) * x[col[k]]
        out[row] = row_scale[row] * total
