"""The operations of `groups` on a GPU; 8 codes of b bits are b bytes, so a tile is unpacked by words of 8."""

# pyright: reportIndexIssue=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bntools.kernels.grouped.operations import Packed

RIGHT = {"ROWS": 8, "WORDS": 64}
LEFT = {"ROWS": 32, "WORDS": 4}
DENSE = {"ROWS": 8, "WORDS": 32}
"""Rows and words (8 codes each) of a tile, for `matvec` per-OC, `matvec` per-IC and `dequantize`."""
DEPTH = 256
"""Rows that one program of the per-IC product sums: 16 programs share 4096 rows."""


def dequantize(p: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [out, in], bit-identical to `groups.dequantize_reference`; bits 1 to 8, both orientations.

    W [4096, 4096], 3 bits, groups of 128, float16 scales, packed zeros: reads 6.6 MB (codes 6.3, scales 0.26,
    zeros 0.05) and writes 33.6 MB as float16 (67.1 as float32): at full bandwidth 26 us (47) on an A100 of
    1.555 TB/s, 12 us (22) on an H100 of 3.35 TB/s. About 21 machine instructions a code (counted in the sm_80
    and sm_90 cubins), 0.35 G in all: 18 us of an A100's issue slots (19.5 T lanes/s), 11 us of an H100's (33
    T). Computed, never run on a GPU.
    """
    rows, cols = p.codes.shape[0], p.cols
    values = torch.empty(rows, cols, dtype=dtype, device=p.codes.device)
    grid = (triton.cdiv(rows, DENSE["ROWS"]), triton.cdiv(cols, 8 * DENSE["WORDS"]))
    if rows:
        dense_kernel[grid](values, *_arguments(p), **_constants(p), **DENSE)
    return values.T if p.transposed else values


def matvec(p: Packed, x: Tensor) -> Tensor:
    """y [n, out] = x [n, in] @ W.T in float32, one program row a vector: meant for n of 1 to about 8.

    W [4096, 4096], 3 bits, groups of 128, float16 scales, packed zeros, n = 1: reads 6.6 MB and 33 KB of x
    and y; at full bandwidth 4.3 us on an A100 of 1.555 TB/s, 2.0 us on an H100 of 3.35 TB/s (dense float16:
    21.6 and 10.0 us). About 11 machine instructions a code per-OC and 13 per-IC (counted as in `dequantize`),
    0.19 G and 0.22 G, so issue slots bound it first: 10 and 11 us on an A100, 6 and 7 us on an H100.
    Computed, never run on a GPU. Sums are float32, in a fixed order.
    """
    rows, cols, count = p.codes.shape[0], p.cols, len(x)
    x = x.float().contiguous()
    if not p.transposed:
        y = x.new_zeros(count, rows)
        grid = (triton.cdiv(rows, RIGHT["ROWS"]), count)
        if y.numel():
            right_kernel[grid](y, x, *_arguments(p), **_constants(p), **RIGHT)
        return y
    splits = triton.cdiv(rows, DEPTH)
    parts = x.new_zeros(splits, count, cols)
    grid = (triton.cdiv(cols, 8 * LEFT["WORDS"]), count, splits)
    if parts.numel():
        left_kernel[grid](parts, x, *_arguments(p), **_constants(p), DEPTH=DEPTH, **LEFT)
    return parts.sum(0)


def _arguments(p: Packed) -> tuple[Tensor | int, ...]:
    zeros = (
        p.codes if p.zeros is None else p.zeros.contiguous()
    )  # a pointer is needed even where none is read
    sizes = (p.codes.shape[0], p.cols, p.codes.shape[1], p.groups, zeros.shape[1])
    return p.codes.contiguous(), p.scales.contiguous(), zeros, *sizes


def _constants(p: Packed) -> dict[str, int | bool]:
    aligned = p.width % 8 == 0 or p.groups == 1
    return {"BITS": p.bits, "SYMMETRIC": p.zeros is None, "WIDTH": p.width, "ALIGNED": aligned}


@triton.jit
def load_words(codes, row, word, rows, nbytes, BITS: tl.constexpr):
    """Words [row, word] of 8 codes: the `BITS` bytes of each, lowest first."""
    wide = tl.int32 if BITS <= 4 else tl.int64
    found = tl.zeros((row.shape[0], word.shape[0]), wide)
    for i in tl.static_range(BITS):
        at = word * BITS + i
        mask = (row < rows)[:, None] & (at < nbytes)[None, :]
        byte = tl.load(codes + row.to(tl.int64)[:, None] * nbytes + at[None, :], mask=mask, other=0)
        found |= byte.to(wide) << (8 * i)
    return found


@triton.jit
def load_group(scales, zeros, row, group, rows, groups, zbytes, BITS: tl.constexpr, SYMMETRIC: tl.constexpr):
    """Scale and zero [row, group], float32; groups past the last read as scale 0."""
    mask = (row < rows)[:, None] & (group < groups)[None, :]
    scale = tl.load(scales + row.to(tl.int64)[:, None] * groups + group[None, :], mask=mask, other=0).to(
        tl.float32
    )
    if SYMMETRIC:
        return scale, tl.full(scale.shape, 1 << (BITS - 1), tl.float32)
    byte, offset = group * BITS // 8, group * BITS % 8
    start = zeros + row.to(tl.int64)[:, None] * zbytes + byte[None, :]
    low = tl.load(start, mask=mask, other=0).to(tl.int32)
    high = tl.load(start + 1, mask=mask & (offset + BITS > 8)[None, :], other=0).to(tl.int32)
    zero = ((low | (high << 8)) >> offset[None, :]) & ((1 << BITS) - 1)
    return scale, zero.to(tl.float32)


@triton.jit
def load_grid(
    scales, zeros, row, word, rows, groups, zbytes,
    BITS: tl.constexpr, SYMMETRIC: tl.constexpr, WIDTH: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Scale and zero of each code, [row, word, 8]; ALIGNED, no word spans two groups: [row, word, 1]."""
    if ALIGNED:
        scale, zero = load_group(scales, zeros, row, word * 8 // WIDTH, rows, groups, zbytes, BITS, SYMMETRIC)
        shape: tl.constexpr = (row.shape[0], word.shape[0], 1)
    else:
        col = tl.reshape(word[:, None] * 8 + tl.arange(0, 8)[None, :], (word.shape[0] * 8,))
        scale, zero = load_group(scales, zeros, row, col // WIDTH, rows, groups, zbytes, BITS, SYMMETRIC)
        shape: tl.constexpr = (row.shape[0], word.shape[0], 8)
    return tl.reshape(scale, shape), tl.reshape(zero, shape)


@triton.jit
def load_codes(codes, row, word, rows, nbytes, BITS: tl.constexpr):
    """Codes [row, word, 8] float32."""
    packed = load_words(codes, row, word, rows, nbytes, BITS)
    return ((packed[:, :, None] >> (tl.arange(0, 8) * BITS)[None, None, :]) & ((1 << BITS) - 1)).to(
        tl.float32
    )


@triton.jit
def dense_kernel(
    values, codes, scales, zeros, rows, cols, nbytes, groups, zbytes,
    WIDTH: tl.constexpr, ALIGNED: tl.constexpr, BITS: tl.constexpr, SYMMETRIC: tl.constexpr,
    ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """values [rows, cols] = (code - zero) * scale."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    code = load_codes(codes, row, word, rows, nbytes, BITS)
    scale, zero = load_grid(scales, zeros, row, word, rows, groups, zbytes, BITS, SYMMETRIC, WIDTH, ALIGNED)
    value = (code - zero) * scale
    col = word[None, :, None] * 8 + tl.arange(0, 8)[None, None, :]
    at = values + row.to(tl.int64)[:, None, None] * cols + col
    tl.store(at, value.to(values.dtype.element_ty), mask=(row < rows)[:, None, None] & (col < cols))


@triton.jit
def right_kernel(
    y, x, codes, scales, zeros, rows, cols, nbytes, groups, zbytes,
    WIDTH: tl.constexpr, ALIGNED: tl.constexpr, BITS: tl.constexpr, SYMMETRIC: tl.constexpr,
    ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """y [n, rows]: sum over words of scale * (codes . x - zero * sum(x)); ALIGNED as in `load_grid`."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, WORDS), tl.float32)
    for start in range(0, tl.cdiv(cols, 8), WORDS):
        word = start + tl.arange(0, WORDS)
        packed = load_words(codes, row, word, rows, nbytes, BITS)
        dot = tl.zeros((ROWS, WORDS), tl.float32)
        mass = tl.zeros((WORDS,), tl.float32)
        for i in tl.static_range(8):
            col = word * 8 + i
            part = tl.load(x + tl.program_id(1) * cols + col, mask=col < cols, other=0)
            code = ((packed >> (i * BITS)) & ((1 << BITS) - 1)).to(tl.float32)
            if ALIGNED:
                dot += code * part[None, :]
                mass += part
            else:
                scale, zero = load_group(
                    scales, zeros, row, col // WIDTH, rows, groups, zbytes, BITS, SYMMETRIC
                )
                total += (code - zero) * scale * part[None, :]
        if ALIGNED:
            scale, zero = load_group(
                scales, zeros, row, word * 8 // WIDTH, rows, groups, zbytes, BITS, SYMMETRIC
            )
            total += scale * (dot - zero * mass[None, :])
    tl.store(y + tl.program_id(1) * rows + row, tl.sum(total, 1), mask=row < rows)


@triton.jit
def left_kernel(
    parts, x, codes, scales, zeros, rows, cols, nbytes, groups, zbytes,
    WIDTH: tl.constexpr, ALIGNED: tl.constexpr, BITS: tl.constexpr, SYMMETRIC: tl.constexpr,
    DEPTH: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """parts [splits, n, cols]: sum over DEPTH rows of x * scale * (code - zero)."""
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    total = tl.zeros((ROWS, WORDS, 8), tl.float32)
    for start in range(0, DEPTH, ROWS):
        row = tl.program_id(2) * DEPTH + start + tl.arange(0, ROWS)
        code = load_codes(codes, row, word, rows, nbytes, BITS)
        scale, zero = load_grid(
            scales, zeros, row, word, rows, groups, zbytes, BITS, SYMMETRIC, WIDTH, ALIGNED
        )
        part = tl.load(x + tl.program_id(1) * rows + row, mask=row < rows, other=0)
        total += (code - zero) * (scale * part[:, None, None])
    y = tl.sum(total, 0)
    col = word[:, None] * 8 + tl.arange(0, 8)[None, :]
    at = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * cols
    tl.store(parts + at + col, y, mask=col < cols)
