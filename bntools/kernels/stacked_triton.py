"""The operations of `stacked` on a GPU: eight weights of a row are a word of codes and a byte of each plane."""

# pyright: reportIndexIssue=false, reportCallIssue=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from bntools.kernels import stacked

DENSE = {"ROWS": 8, "EIGHTS": 32}
PRODUCT = {"ROWS": 8, "EIGHTS": 64}
"""Rows of a program, and groups of eight weights of each that it takes at a time."""
LISTED = 256
"""Levels of the list that a program places."""


class Weight(NamedTuple):
    """A `stacked.Stacked` in a device's memory; row [n] int32 is that of each level of the list."""

    words: Tensor
    bits: int
    cols: int
    start: Tensor
    row: Tensor
    col: Tensor
    value: Tensor
    row_scale: Tensor
    col_scale: Tensor
    row_class: Tensor
    col_class: Tensor
    shrink: Tensor
    planes: Tensor
    first: Tensor
    stride: int
    depth: Tensor
    deepest: int


def to(w: stacked.Stacked, device: str) -> Weight:
    """Copy a weight to a device."""
    levels = w.levels
    row = np.repeat(np.arange(levels.rows, dtype=np.int32), np.diff(levels.start))

    def put(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    listed = (put(part) for part in (levels.start, row, levels.col, levels.value))
    deepest = int(w.depth.max(initial=0))
    return Weight(
        put(levels.words.view(np.int32)), levels.bits, levels.cols, *listed, *map(put, w.scales), put(w.bits),
        put(w.first), w.stride, put(w.depth), deepest,
    )  # fmt: skip


def dense(w: Weight, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [out, in], equal to `stacked.rows_reference` bit for bit in float32.

    W [4096, 4096] with levels of 4 bits and 3 planes: reads 14.7 MB and writes 33.6 MB as float16 (67.1 as float32):
    at full bandwidth 31 us (53) on an A100 of 1.555 TB/s, 14 us (24) on an H100 of 3.35 TB/s. Computed, never run on
    a GPU.
    """
    rows = len(w.words)
    out = torch.empty(rows, w.cols, dtype=dtype, device=w.words.device)
    grid = (triton.cdiv(rows, DENSE["ROWS"]), triton.cdiv(w.cols, 8 * DENSE["EIGHTS"]))
    sizes = (rows, w.cols, w.planes.shape[1], w.stride)
    scales = (w.row_scale, w.col_scale, w.row_class, w.col_class, w.shrink)
    planes = (w.planes, w.first, w.depth)
    dense_kernel[grid](out, w.words, *scales, *planes, *sizes, BITS=w.bits, DEEPEST=w.deepest, **DENSE)
    if len(w.value):
        listed_kernel[(triton.cdiv(len(w.value), LISTED),)](
            out,
            w.row,
            w.col,
            w.value,
            *scales,
            *planes,
            *sizes[1:],
            len(w.value),
            DEEPEST=w.deepest,
            SIZE=LISTED,
        )
    return out


def product(w: Weight, x: Tensor) -> Tensor:
    """y [n, out] = x [n, in] W^T in float32, one program row a vector: meant for n of 1 to about 8.

    W [4096, 4096] with levels of 4 bits and 3 planes, n = 1: reads 14.7 MB; at full bandwidth 9.5 us on an A100 of
    1.555 TB/s, 4.4 us on an H100 of 3.35 TB/s (dense float16: 21.6 and 10.0 us). Computed, never run on a GPU. Sums are
    float32, in a fixed order.
    """
    rows = len(w.words)
    x = x.float()
    plain = bool((w.shrink == 1).all())
    if plain:
        scaled, kind = (x * w.col_scale)[:, None].contiguous(), w.first
    else:
        classes, kind = w.row_class.unique(return_inverse=True)
        shrink = w.shrink[(classes[:, None].long() + w.col_class).clamp(0, 63)]
        scaled, kind = (x[:, None] * (w.col_scale * shrink)).contiguous(), kind.int()
    y = x.new_empty(len(x), rows)
    if len(x):
        product_kernel[(triton.cdiv(rows, PRODUCT["ROWS"]), len(x))](
            y, scaled, kind, w.words, w.row_scale, w.planes, w.first, w.depth, w.start, w.col, w.value, rows, w.cols,
            w.planes.shape[1], w.stride, scaled.shape[1], BITS=w.bits, DEEPEST=w.deepest, PLAIN=plain, **PRODUCT,
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
def load_plane(planes, first, depth, row, eight, plane: tl.constexpr, rows, width, stride):
    """The bytes of a plane [row, eight], and whether each row has it."""
    there = (row < rows) & (plane < depth)
    at = (first.to(tl.int64) + plane * stride) * width
    mask = there[:, None] & (eight < width)[None, :]
    return tl.load(planes + at[:, None] + eight[None, :], mask=mask, other=0).to(tl.int32), there


@triton.jit
def dense_kernel(
    out, words, row_scale, col_scale, row_class, col_class, shrink, planes, first, depth, rows, cols, width, stride,
    BITS: tl.constexpr, DEEPEST: tl.constexpr, ROWS: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    """out [rows, cols] without the levels of the list."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    eight = tl.program_id(1) * EIGHTS + tl.arange(0, EIGHTS)
    i = tl.arange(0, 8)[None, None, :]
    low, high = load_words(words, row, eight, rows, width, BITS)
    value = code(low[:, :, None], high[:, :, None], i, BITS)
    mine = tl.load(first + row, mask=row < rows, other=0)
    deep = tl.load(depth + row, mask=row < rows, other=0).to(tl.int32)
    for plane in tl.static_range(DEEPEST):
        packed, there = load_plane(planes, mine, deep, row, eight, plane, rows, width, stride)
        up = ((packed[:, :, None] >> i) & 1).to(tl.float32)
        value += tl.where(there[:, None, None], (up - 0.5) * (0.5 / (1 << plane)), 0.0)
    col = eight[None, :, None] * 8 + i
    there = (row < rows)[:, None, None] & (col < cols)
    own = tl.load(row_class + row, mask=row < rows, other=0).to(tl.int32)[:, None, None]
    other = tl.load(col_class + col, mask=col < cols, other=0).to(tl.int32)
    kind = tl.minimum(tl.maximum(own + other, 0), 63)
    scale = tl.load(row_scale + row, mask=row < rows, other=0)[:, None, None]
    scale = scale * tl.load(col_scale + col, mask=col < cols, other=0) * tl.load(shrink + kind)
    at = out + row.to(tl.int64)[:, None, None] * cols + col
    tl.store(at, (value * scale).to(out.dtype.element_ty), mask=there)


@triton.jit
def listed_kernel(
    out, rows, cols_of, levels, row_scale, col_scale, row_class, col_class, shrink, planes, first, depth, cols, width,
    stride, count, DEEPEST: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Weights whose levels stand in the list, one a lane."""
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    here = at < count
    row, col = tl.load(rows + at, mask=here, other=0), tl.load(cols_of + at, mask=here, other=0)
    value = tl.load(levels + at, mask=here, other=0).to(tl.float32)
    deep = tl.load(depth + row).to(tl.int32)
    mine = tl.load(first + row).to(tl.int64)
    for plane in tl.static_range(DEEPEST):
        there = here & (plane < deep)
        byte = tl.load(planes + (mine + plane * stride) * width + col // 8, mask=there, other=0).to(tl.int32)
        up = ((byte >> (col % 8)) & 1).to(tl.float32)
        value += tl.where(there, (up - 0.5) * (0.5 / (1 << plane)), 0.0)
    kind = tl.load(row_class + row).to(tl.int32) + tl.load(col_class + col).to(tl.int32)
    kind = tl.minimum(tl.maximum(kind, 0), 63)
    value *= tl.load(row_scale + row) * tl.load(col_scale + col) * tl.load(shrink + kind)
    tl.store(out + row.to(tl.int64) * cols + col, value.to(out.dtype.element_ty), mask=here)


@triton.jit
def product_kernel(
    y, x, kind, words, row_scale, planes, first, depth, start, listed, levels, rows, cols, width, stride, kinds,
    BITS: tl.constexpr, DEEPEST: tl.constexpr, PLAIN: tl.constexpr, ROWS: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    """y [n, rows]; x [n, kinds, cols] is scaled for every class of rows, PLAIN for the only one."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    own = tl.zeros((ROWS,), tl.int32) if PLAIN else tl.load(kind + row, mask=row < rows, other=0)
    source = x + (tl.program_id(1).to(tl.int64) * kinds + own.to(tl.int64)) * cols
    mine = tl.load(first + row, mask=row < rows, other=0)
    deep = tl.load(depth + row, mask=row < rows, other=0).to(tl.int32)
    half = tl.exp2(-deep.to(tl.float32)) * 0.5 - 0.5  # what the bits of a row that are 0 come to
    total = tl.zeros((ROWS, EIGHTS), tl.float32)
    for begin in range(0, width, EIGHTS):
        eight = begin + tl.arange(0, EIGHTS)
        low, high = load_words(words, row, eight, rows, width, BITS)
        fraction = tl.zeros((ROWS, EIGHTS), tl.int64)  # a byte a weight: its planes as one number
        for plane in tl.static_range(DEEPEST):
            packed, there = load_plane(planes, mine, deep, row, eight, plane, rows, width, stride)
            wide = packed.to(tl.int64)
            wide = (wide | (wide << 28)) & 0x0000000F0000000F
            wide = (wide | (wide << 14)) & 0x0003000300030003
            wide = (wide | (wide << 7)) & 0x0101010101010101
            fraction += wide << (7 - plane)
        for i in tl.static_range(8):
            col = eight * 8 + i
            mask = (row < rows)[:, None] & (col < cols)[None, :]
            part = tl.load(source[:, None] + col[None, :], mask=mask, other=0)
            level = code(low, high, i, BITS)
            more = ((fraction >> (8 * i)) & 255).to(tl.float32) * (1 / 256)
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
