"""The operations of `stacked` on a GPU: eight weights of a row are a word of codes and a byte of each line."""

# pyright: reportIndexIssue=false, reportCallIssue=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.stack import weight as stack_weight

ROWS = {"ROWS": 8, "EIGHTS": 32}
PRODUCT = {"ROWS": 8, "EIGHTS": 64}
"""Rows of a program, and groups of eight weights of each that it takes at a time."""
LISTED = {"ROWS": 8, "SIZE": 32}
"""Rows of a program, and levels of each row's list that it places at a time."""


class StackedWeight(NamedTuple):
    """A `stacked.Stacked` in a device's memory.

    plain: whether every shrink is 1. classes [n] int16: those of rows that occur, or one if plain; kind [out] int32:
    which of them a row has. What an operation has to know of the values is found when they are copied, so that it
    never waits for the device.
    """

    words: Tensor
    bits: int
    cols: int
    start: Tensor
    col: Tensor
    value: Tensor
    row_scale: Tensor
    col_scale: Tensor
    row_class: Tensor
    col_class: Tensor
    shrink: Tensor
    plain: bool
    classes: Tensor
    kind: Tensor
    planes: Tensor
    first: Tensor
    stride: int
    depth: Tensor
    trellis: int
    deepest: int

    @property
    def nbytes(self) -> int:
        """Bytes in the device's memory."""
        return sum(getattr(part, "nbytes", 0) for part in self)


def to(w: stack_weight.Stacked, device: str | torch.device) -> StackedWeight:
    """Copy a weight to a device."""
    levels, scales = w.levels, w.scales
    plain = bool((scales.shrink == 1).all())
    seen = np.zeros_like(scales.row_class) if plain else scales.row_class
    classes, kind = np.unique(seen, return_inverse=True)
    listed = (_put(part, device) for part in (levels.start, levels.col, levels.value))
    nothing = torch.empty(0, device=device)
    there = StackedWeight(
        _put(levels.words.view(np.int32), device), levels.bits, levels.cols, *listed,
        *(_put(part, device) for part in scales), plain, _put(classes, device), _put(kind.astype(np.int32), device),
        nothing, nothing, 0, nothing, 0, 0,
    )  # fmt: skip
    return with_planes(there, w.bits, w.first, w.stride, w.depth, w.trellis)


def with_planes(
    w: StackedWeight, bits: NDArray[np.uint8], first: NDArray[np.int32], stride: int, depth: NDArray[np.uint8],
    trellis: int,
) -> StackedWeight:  # fmt: skip
    """The same base with other planes, which alone are copied; their fields are those of `stacked.Stacked`."""
    device, deepest = w.words.device, int(depth.max(initial=0))
    return w._replace(
        planes=_put(bits, device), first=_put(first, device), stride=stride, depth=_put(depth, device),
        trellis=trellis, deepest=deepest,
    )  # fmt: skip


def _put(array: np.ndarray, device: str | torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def dense(w: StackedWeight, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [out, in], equal to `stacked.rows_reference` bit for bit in float32.

    W [4096, 4096] with levels of 4 bits and 3 lines: reads 14.7 MB and writes 33.6 MB as float16 (67.1 as float32):
    at full bandwidth 31 us (53) on an A100 of 1.555 TB/s, 14 us (24) on an H100 of 3.35 TB/s. Computed, never run on
    a GPU.
    """
    return rows(w, torch.arange(len(w.words), device=w.words.device), dtype)


def rows(w: StackedWeight, which: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Some rows [n, in], numbered by a tensor of the device; otherwise as `dense`, of which they are a part."""
    which = which.to(torch.int32)
    out = torch.empty(len(which), w.cols, dtype=dtype, device=w.words.device)
    if not len(which):
        return out
    grid = (triton.cdiv(len(which), ROWS["ROWS"]), triton.cdiv(w.cols, 8 * ROWS["EIGHTS"]))
    scales = (w.row_scale, w.col_scale, w.row_class, w.col_class, w.shrink)
    planes, sizes = (w.planes, w.first, w.depth), (w.cols, w.planes.shape[1], w.stride)
    rows_kernel[grid](
        out, which, w.words, *scales, *planes, len(which), len(w.words), *sizes, BITS=w.bits, DEEPEST=w.deepest,
        TRELLIS=w.trellis, **ROWS,
    )  # fmt: skip
    if len(w.value):
        listed_kernel[(triton.cdiv(len(which), LISTED["ROWS"]),)](
            out, which, w.start, w.col, w.value, *scales, *planes, len(which), *sizes, DEEPEST=w.deepest,
            TRELLIS=w.trellis, **LISTED,
        )  # fmt: skip
    return out


def product(w: StackedWeight, x: Tensor) -> Tensor:
    """y [n, out] = x [n, in] W^T in float32, one program row a vector: meant for n of 1 to about 8.

    W [4096, 4096] with levels of 4 bits and 3 lines, n = 1: reads 14.7 MB; at full bandwidth 9.5 us on an A100 of
    1.555 TB/s, 4.4 us on an H100 of 3.35 TB/s (dense float16: 21.6 and 10.0 us). Computed, never run on a GPU. Sums are
    float32, in a fixed order.
    """
    count, scale = len(w.words), w.col_scale
    if not w.plain:
        scale = scale * w.shrink[(w.classes[:, None].long() + w.col_class).clamp(0, 63)]
    scaled = (x.float()[:, None] * scale).contiguous()
    y = x.new_empty(len(x), count, dtype=torch.float32)
    if len(x):
        product_kernel[(triton.cdiv(count, PRODUCT["ROWS"]), len(x))](
            y, scaled, w.kind, w.words, w.row_scale, w.planes, w.first, w.depth, w.start, w.col, w.value, count, w.cols,
            w.planes.shape[1], w.stride, scaled.shape[1], BITS=w.bits, DEEPEST=w.deepest,
            TRELLIS=w.trellis, PLAIN=w.plain, **PRODUCT,
        )  # fmt: skip
    return y


@triton.jit
def load_words(words, row, eight, rows, eights, BITS: tl.constexpr):
    """The codes of eight weights [row, eight]: one word of 4 bits each twice, or two of 8 bits each."""
    mask = (row < rows)[:, None] & (eight < eights)[None, :]
    if BITS == 4:
        low = tl.load(words + row.to(tl.int64)[:, None] * eights + eight[None, :], mask=mask, other=0)
        return low, low
    at = words + row.to(tl.int64)[:, None] * (2 * eights) + 2 * eight[None, :]
    return tl.load(at, mask=mask, other=0), tl.load(at + 1, mask=mask, other=0)


@triton.jit
def code(low, high, i, BITS: tl.constexpr):
    """Level of weight i of eight, float32."""
    word = low if BITS == 4 else tl.where(i < 4, low, high)
    found = (word >> (i * BITS % 32)) & ((1 << BITS) - 1)
    return (found - (1 << (BITS - 1))).to(tl.float32)


@triton.jit
def line_of(first, plane: tl.constexpr, finer: tl.constexpr, stride, TRELLIS: tl.constexpr):
    """Where in the bits a plane's line is, or the finer one of the two of a trellis code."""
    before: tl.constexpr = plane + (plane if plane < TRELLIS else TRELLIS)
    return first.to(tl.int64) + (before + finer) * stride


@triton.jit
def load_line(planes, line, there, eight, width):
    """The bytes of a line [row, eight]."""
    mask = there[:, None] & (eight < width)[None, :]
    return tl.load(planes + line[:, None] * width + eight[None, :], mask=mask, other=0).to(tl.int32)


@triton.jit
def rows_kernel(
    out, which, words, row_scale, col_scale, row_class, col_class, shrink, planes, first, depth, count, rows, cols,
    width, stride, BITS: tl.constexpr, DEEPEST: tl.constexpr, TRELLIS: tl.constexpr, ROWS: tl.constexpr,
    EIGHTS: tl.constexpr,
):  # fmt: skip
    """out [count, cols]: rows `which` [count] without the levels of the list."""
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.load(which + place, mask=place < count, other=rows)
    eight = tl.program_id(1) * EIGHTS + tl.arange(0, EIGHTS)
    i = tl.arange(0, 8)[None, None, :]
    low, high = load_words(words, row, eight, rows, width, BITS)
    value = code(low[:, :, None], high[:, :, None], i, BITS)
    mine = tl.load(first + row, mask=row < rows, other=0)
    deep = tl.load(depth + row, mask=row < rows, other=0).to(tl.int32)
    for plane in tl.static_range(DEEPEST):
        there = (row < rows) & (plane < deep)
        for finer in tl.static_range(1 + (plane < TRELLIS)):
            line = line_of(mine, plane, finer, stride, TRELLIS)
            up = ((load_line(planes, line, there, eight, width)[:, :, None] >> i) & 1).to(tl.float32)
            value += tl.where(there[:, None, None], (up - 0.5) * (0.5 / (1 << (plane + finer))), 0.0)
    col = eight[None, :, None] * 8 + i
    there = (row < rows)[:, None, None] & (col < cols)
    own = tl.load(row_class + row, mask=row < rows, other=0).to(tl.int32)[:, None, None]
    other = tl.load(col_class + col, mask=col < cols, other=0).to(tl.int32)
    kind = tl.minimum(tl.maximum(own + other, 0), 63)
    scale = tl.load(row_scale + row, mask=row < rows, other=0)[:, None, None]
    scale = scale * tl.load(col_scale + col, mask=col < cols, other=0) * tl.load(shrink + kind)
    at = out + place.to(tl.int64)[:, None, None] * cols + col
    tl.store(at, (value * scale).to(out.dtype.element_ty), mask=there)


@triton.jit
def listed_kernel(
    out, which, start, listed, levels, row_scale, col_scale, row_class, col_class, shrink, planes, first, depth, count,
    cols, width, stride, DEEPEST: tl.constexpr, TRELLIS: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Weights [count, cols] whose levels stand in the list of their row, one a lane."""
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.load(which + place, mask=place < count, other=0)
    begin = tl.load(start + row)
    length = tl.where(place < count, tl.load(start + row + 1) - begin, 0)
    deep = tl.load(depth + row).to(tl.int32)[:, None]
    mine = tl.load(first + row)[:, None]
    own, own_scale = tl.load(row_class + row).to(tl.int32)[:, None], tl.load(row_scale + row)[:, None]
    for done in range(0, tl.max(length, 0), SIZE):
        k = done + tl.arange(0, SIZE)[None, :]
        here = k < length[:, None]
        col = tl.load(listed + begin[:, None] + k, mask=here, other=0)
        value = tl.load(levels + begin[:, None] + k, mask=here, other=0).to(tl.float32)
        for plane in tl.static_range(DEEPEST):
            there = here & (plane < deep)
            for finer in tl.static_range(1 + (plane < TRELLIS)):
                at = line_of(mine, plane, finer, stride, TRELLIS) * width + col // 8
                up = (tl.load(planes + at, mask=there, other=0).to(tl.int32) >> (col % 8)) & 1
                value += tl.where(there, (up.to(tl.float32) - 0.5) * (0.5 / (1 << (plane + finer))), 0.0)
        kind = tl.minimum(tl.maximum(own + tl.load(col_class + col).to(tl.int32), 0), 63)
        value *= own_scale * tl.load(col_scale + col) * tl.load(shrink + kind)
        at = out + place.to(tl.int64)[:, None] * cols + col
        tl.store(at, value.to(out.dtype.element_ty), mask=here)


@triton.jit
def product_kernel(
    y, x, kind, words, row_scale, planes, first, depth, start, listed, levels, rows, cols, width, stride, kinds,
    BITS: tl.constexpr, DEEPEST: tl.constexpr, TRELLIS: tl.constexpr, PLAIN: tl.constexpr, ROWS: tl.constexpr,
    EIGHTS: tl.constexpr,
):  # fmt: skip
    """y [n, rows]; x [n, kinds, cols] is scaled for every class of rows, PLAIN for the only one."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    own = tl.zeros((ROWS,), tl.int32) if PLAIN else tl.load(kind + row, mask=row < rows, other=0)
    source = x + (tl.program_id(1).to(tl.int64) * kinds + own.to(tl.int64)) * cols
    mine = tl.load(first + row, mask=row < rows, other=0)
    deep = tl.load(depth + row, mask=row < rows, other=0).to(tl.int32)
    linked = tl.minimum(deep, TRELLIS)
    # what the bits of a row that are 0 come to: minus half the weights of its lines
    half = tl.exp2(-deep.to(tl.float32)) * 0.5 + tl.exp2(-linked.to(tl.float32)) * 0.25 - 0.75
    total = tl.zeros((ROWS, EIGHTS), tl.float32)
    for begin in range(0, width, EIGHTS):
        eight = begin + tl.arange(0, EIGHTS)
        low, high = load_words(words, row, eight, rows, width, BITS)
        fraction = tl.zeros((ROWS, EIGHTS), tl.int64)  # a byte a weight: its lines, in units of 2^-7
        for plane in tl.static_range(DEEPEST):
            there = (row < rows) & (plane < deep)
            for finer in tl.static_range(1 + (plane < TRELLIS)):
                line = line_of(mine, plane, finer, stride, TRELLIS)
                wide = load_line(planes, line, there, eight, width).to(tl.int64)
                wide = (wide | (wide << 28)) & 0x0000000F0000000F
                wide = (wide | (wide << 14)) & 0x0003000300030003
                wide = (wide | (wide << 7)) & 0x0101010101010101
                fraction += wide << (6 - plane - finer)
        for i in tl.static_range(8):
            col = eight * 8 + i
            mask = (row < rows)[:, None] & (col < cols)[None, :]
            part = tl.load(source[:, None] + col[None, :], mask=mask, other=0)
            level = code(low, high, i, BITS)
            more = ((fraction >> (8 * i)) & 255).to(tl.float32) * (1 / 128)
            total += (level + (more + half[:, None])) * part
    dot = tl.sum(total, 1)
    begin = tl.load(start + row, mask=row < rows, other=0)
    count = tl.load(start + row + 1, mask=row < rows, other=0) - begin
    for k in range(tl.max(count, 0)):
        there = k < count
        col = tl.load(listed + begin + k, mask=there, other=0)
        level = tl.load(levels + begin + k, mask=there, other=0).to(tl.float32)
        dot += level * tl.load(source + col, mask=there, other=0)
    scale = tl.load(row_scale + row, mask=row < rows, other=0)
    tl.store(y + tl.program_id(1) * rows + row, scale * dot, mask=row < rows)
