"""The sums of `absolute` on a GPU: signs times low-rank sizes, made into a weight or multiplied as they are.

Factors are float16, so each product of two is exact in float32: sums in the order of the ranks are those of the CPU
bit for bit, fused multiply-adds or not. A caller takes levels from `core.bitstack.read`; no tool does so yet, all of
them have weights made on the CPU when they are loaded.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

DENSE = {"ROWS": 16, "EIGHTS": 32}
PRODUCT = {"ROWS": 64, "EIGHTS": 8, "RANKS": 16}
"""Rows of a program, and groups of eight weights and ranks of each that it takes at a time."""


class BinaryWeight(NamedTuple):
    """W [out, in] = scale o sum_l S_l o (u_l v_l) in a device's memory.

    signs [levels, out, ceil(in / 8)] uint8, packed as by `kernels.planes.pack`, 1 for +. left u [levels, out, k],
    right v [levels, k, in] float16. scale [in] float32.
    """

    signs: Tensor
    left: Tensor
    right: Tensor
    scale: Tensor


def to(
    levels: Sequence[tuple[NDArray[np.uint8], NDArray[np.floating], NDArray[np.floating]]],
    shape: tuple[int, int],
    scale: Tensor | None,
    device: str,
) -> BinaryWeight:
    """Copy levels (signs, u, v), whose numbers are float16's, of a weight [out, in] to a device; scale: 1 if None."""
    out, inner = shape
    count, rank = len(levels), len(levels[0][2]) if levels else 0
    signs, left, right = (np.array([level[part] for level in levels]) for part in range(3))

    def put(array: np.ndarray, kind: type, *sizes: int) -> Tensor:
        return torch.from_numpy(array.astype(kind).reshape(count, *sizes)).to(device)

    return BinaryWeight(
        put(signs, np.uint8, out, -(-inner // 8)), put(left, np.float16, out, rank),
        put(right, np.float16, rank, inner), (torch.ones(inner) if scale is None else scale.float()).to(device),
    )  # fmt: skip


def dense(w: BinaryWeight, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [out, in], equal to what `absolute.add` sums up, times the scale, bit for bit before it is rounded to `dtype`.

    W [4096, 4096] of 8 levels of rank 16: reads 18.9 MB and writes 33.6 MB as float16, at full bandwidth 34 us on an
    A100 of 1.555 TB/s and 16 us on an H100 of 3.35 TB/s; but 2.1 G multiply-adds in float32 take 220 us at the
    A100's 19.5 TFLOP/s, 64 us at the H100's 67. Computed, never run on a GPU.
    """
    count, rows, width = w.signs.shape
    rank, cols = w.right.shape[1], len(w.scale)
    out = torch.empty(rows, cols, dtype=dtype, device=w.signs.device)
    grid = (triton.cdiv(rows, DENSE["ROWS"]), triton.cdiv(cols, 8 * DENSE["EIGHTS"]))
    dense_kernel[grid](out, *w, rows, cols, width, count, rank, **DENSE)
    return out


def product(w: BinaryWeight, x: Tensor) -> Tensor:
    """y [n, out] = x [n, in] W^T in float32, one program row a vector: meant for n of 1 to about 8.

    y_i = sum_lk u_lik sum_j s_lij (v_lkj x_j): the inner sums are a product of signs and a matrix of k columns, which
    tensor cores take in tf32. Signs are exact in it, v x is cut into two parts, which have 2^-20 of it. Each level is
    summed by programs of its own, the levels then in order.

    W [4096, 4096] of 8 levels of rank 16, n = 1: reads 18.9 MB, at full bandwidth 12 us on an A100 of 1.555 TB/s and
    5.6 us on an H100 of 3.35 TB/s; two passes of 2.1 G multiply-adds take 55 us at the A100's 156 TFLOP/s in tf32, 17
    us at the H100's 495 (reading dense float16: 21.6 and 10.0 us). So it saves memory; time only where levels are
    few. Computed, never run on a GPU.
    """
    (count, rows, width), n = w.signs.shape, len(x)
    x = (x.float() * w.scale).contiguous()
    parts = x.new_empty(count, n, rows)
    if parts.numel():
        grid = (triton.cdiv(rows, PRODUCT["ROWS"]), count, n)
        sizes = (rows, x.shape[1], width, w.right.shape[1])
        product_kernel[grid](parts, x, w.signs, w.left, w.right, *sizes, n, **PRODUCT)
    return parts.sum(0)


@triton.jit
def load_signs(signs, row, eight, rows, width):
    """The bytes of eight signs each of a level [row, eight]."""
    mask = (row < rows)[:, None] & (eight < width)[None, :]
    at = signs + row.to(tl.int64)[:, None] * width + eight[None, :]
    return tl.load(at, mask=mask, other=0).to(tl.int32)


@triton.jit
def dense_kernel(
    out, signs, left, right, scale, rows, cols, width, count, rank, ROWS: tl.constexpr, EIGHTS: tl.constexpr
):
    """out [rows, cols], every level added to those before it."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    eight = tl.program_id(1) * EIGHTS + tl.arange(0, EIGHTS)
    i = tl.arange(0, 8)[None, None, :]
    col = eight[None, :, None] * 8 + i
    value = tl.zeros((ROWS, EIGHTS, 8), tl.float32)
    u_of, v_of = left + row.to(tl.int64) * rank, right
    for _ in range(count):
        size = tl.zeros((ROWS, EIGHTS, 8), tl.float32)
        for k in range(rank):
            u = tl.load(u_of + k, mask=row < rows, other=0).to(tl.float32)
            v = tl.load(v_of + col, mask=col < cols, other=0).to(tl.float32)
            size += u[:, None, None] * v
            v_of += cols
        up = (load_signs(signs, row, eight, rows, width)[:, :, None] >> i) & 1
        value += tl.where(up == 1, size, -size)
        signs += tl.cast(rows, tl.int64) * width
        u_of += tl.cast(rows, tl.int64) * rank
    value *= tl.load(scale + col, mask=col < cols, other=0)
    at = out + row.to(tl.int64)[:, None, None] * cols + col
    tl.store(at, value.to(out.dtype.element_ty), mask=(row < rows)[:, None, None] & (col < cols))


@triton.jit
def product_kernel(
    parts, x, signs, left, right, rows, cols, width, rank, n,
    ROWS: tl.constexpr, EIGHTS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """parts [levels, n, rows]; x [n, cols] is scaled."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    level, vector = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i = tl.arange(0, 8)[None, None, :]
    total = tl.zeros((ROWS,), tl.float32)
    for first in range(0, rank, RANKS):
        k = first + tl.arange(0, RANKS)
        inner = tl.zeros((ROWS, RANKS), tl.float32)
        for begin in range(0, width, EIGHTS):
            packed = load_signs(signs + level * rows * width, row, begin + tl.arange(0, EIGHTS), rows, width)
            sign = (2 * ((packed[:, :, None] >> i) & 1) - 1).to(tl.float32)
            sign = tl.reshape(sign, (ROWS, 8 * EIGHTS))
            col = 8 * begin + tl.arange(0, 8 * EIGHTS)
            mask = (col < cols)[:, None] & (k < rank)[None, :]
            v = tl.load(right + (level * rank + k)[None, :] * cols + col[:, None], mask=mask, other=0)
            z = v.to(tl.float32) * tl.load(x + vector * cols + col, mask=col < cols, other=0)[:, None]
            high = (z.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # the bits tf32 has
            inner = tl.dot(sign, high, inner, input_precision="tf32")
            inner = tl.dot(sign, z - high, inner, input_precision="tf32")
        mask = (row < rows)[:, None] & (k < rank)[None, :]
        u = tl.load(left + ((level * rows + row) * rank)[:, None] + k[None, :], mask=mask, other=0)
        total += tl.sum(u.to(tl.float32) * inner, 1)
    tl.store(parts + (level * n + vector) * rows + row, total, mask=row < rows)
