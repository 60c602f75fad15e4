"""One vector times packed codes of 1 to 4 bits on a CPU: eight codes a register, unpacked on the way, never stored.

Eight codes of b bits are one little-endian word of b bytes. A word is spread to eight lanes, shifted lane by lane,
masked, converted and multiplied: five vector instructions for eight codes, against two (a load and a multiply-add)
of a dense float32, which in turn reads 32 / b times the bytes. Four rows at a time share the loads of the vector.

The vector instructions are written as LLVM IR, since numba leaves LLVM's superword vectorizer off and its loop
vectorizer does not see eight codes in one word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

ROWS = 4
"""Rows worked on together: as many chains of multiply-adds as their latency needs."""
CHUNK = 1 << 19
"""Codes that are worth a thread of their own: about 0.1 ms of work."""

_I8, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_WORDS, _LANES = ir.VectorType(_I32, 8), ir.VectorType(_F32, 8)


def fits(bits: int, width: int, groups: int) -> bool:
    """Whether codes are of 1 to 4 bits and groups start on whole words of eight."""
    return 1 <= bits <= 4 and (groups == 1 or width % 8 == 0) and sys.byteorder == "little"


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """One scalar in all eight lanes."""
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), ir.Constant(_WORDS, [0] * 8))


def _unpacker(builder: Any, bits: Any) -> Callable[[Any], Any]:
    """A function that emits the eight codes, as floats, of the word at an address."""
    narrow = builder.trunc(bits, _I32)
    shifts = builder.mul(_spread(builder, narrow, _WORDS), ir.Constant(_WORDS, list(range(8))))
    mask = _spread(builder, builder.sub(builder.shl(_I32(1), narrow), _I32(1)), _WORDS)

    def unpack(address: Any) -> Any:
        word = builder.load(builder.inttoptr(address, _I32.as_pointer()), align=1)
        fields = builder.and_(builder.lshr(_spread(builder, word, _WORDS), shifts), mask)
        return builder.sitofp(fields, _LANES)

    return unpack


def _lanes_at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _LANES.as_pointer())


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


@intrinsic
def _dot_rows(
    typing_context: Any, codes: Any, stride: Any, bits: Any, x: Any, words: Any, s0: Any, s1: Any, s2: Any, s3: Any,
    totals: Any,
) -> Any:  # fmt: skip
    """totals [4, 8] += s_r * sum over words of codes [r, word] * x [word], each [8]; addresses, strides in bytes."""
    floats = (types.float32,) * ROWS
    signature = types.void(types.int64, types.int64, types.int64, types.int64, types.int64, *floats, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes, stride, bits, x, words, *scales, totals = args
        unpack = _unpacker(builder, bits)
        sums = [cgutils.alloca_once(builder, _LANES) for _ in range(ROWS)]
        for total in sums:
            builder.store(ir.Constant(_LANES, [0.0] * 8), total)
        starts = [builder.add(codes, builder.mul(stride, _I64(row))) for row in range(ROWS)]
        with cgutils.for_range(builder, words, intp=_I64) as loop:
            part = builder.load(_lanes_at(builder, builder.add(x, builder.mul(loop.index, _I64(32)))), align=4)
            step = builder.mul(loop.index, bits)
            for start, total in zip(starts, sums, strict=True):
                found = unpack(builder.add(start, step))
                builder.store(_multiply_add(builder, found, part, builder.load(total)), total)
        for row, (total, scale) in enumerate(zip(sums, scales, strict=True)):
            place = _lanes_at(builder, builder.add(totals, _I64(32 * row)))
            wide = _spread(builder, scale, _LANES)
            old = builder.load(place, align=4)
            builder.store(_multiply_add(builder, builder.load(total), wide, old), place, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _add_rows(
    typing_context: Any, codes: Any, stride: Any, bits: Any, words: Any, a0: Any, a1: Any, a2: Any, a3: Any, y: Any
) -> Any:
    """y [word] += sum over four rows of a_r * codes [r, word], each [8]; addresses, strides in bytes."""
    floats = (types.float32,) * ROWS
    signature = types.void(types.int64, types.int64, types.int64, types.int64, *floats, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes, stride, bits, words, *factors, y = args
        unpack = _unpacker(builder, bits)
        wide = [_spread(builder, factor, _LANES) for factor in factors]
        starts = [builder.add(codes, builder.mul(stride, _I64(row))) for row in range(ROWS)]
        with cgutils.for_range(builder, words, intp=_I64) as loop:
            place = _lanes_at(builder, builder.add(y, builder.mul(loop.index, _I64(32))))
            total, step = builder.load(place, align=4), builder.mul(loop.index, bits)
            for start, factor in zip(starts, wide, strict=True):
                total = _multiply_add(builder, unpack(builder.add(start, step)), factor, total)
            builder.store(total, place, align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, nogil=True)
def _zero(zeros: Any, row: int, group: int, bits: int) -> Any:
    """One packed zero; 2^(bits - 1) where there are none."""
    if zeros.shape[1] == 0:
        return np.float32(1 << (bits - 1))
    at = group * bits
    low = np.int64(zeros[row, at >> 3])
    if (at & 7) + bits > 8:
        low |= np.int64(zeros[row, (at >> 3) + 1]) << 8
    return np.float32((low >> (at & 7)) & ((1 << bits) - 1))


@njit(cache=True, nogil=True)
def _right(
    codes: Any, scales: Any, zeros: Any, x: Any, sums: Any, bits: int, words: int, y: Any, first: int, last: int
) -> None:
    """y [rows] for rows first to last: sum_g s_rg (q_rg . x_g - z_rg sum(x_g)); words of a group, the last's fewer."""
    groups, totals = scales.shape[1], np.empty(8 * ROWS, np.float32)
    whole = x.shape[0] // 8
    for row in range(first, last, ROWS):
        count = min(ROWS, last - row)
        stride = codes.strides[0] if count == ROWS else 0
        for part in range(1 if count == ROWS else count):
            at = row + part
            totals[:] = 0
            for g in range(groups):
                start = g * words
                _dot_rows(
                    codes.ctypes.data + at * codes.strides[0] + start * bits, stride, bits,
                    x.ctypes.data + start * 32, min(words, whole - start),
                    scales[at, g], scales[at + (1 if stride else 0), g], scales[at + (2 if stride else 0), g],
                    scales[at + (3 if stride else 0), g], totals.ctypes.data,
                )  # fmt: skip
            for r in range(ROWS if stride else 1):
                total = np.float32(0)
                for lane in range(8):
                    total += totals[8 * r + lane]
                for g in range(groups):
                    total -= scales[at + r, g] * _zero(zeros, at + r, g, bits) * sums[g]
                y[at + r] = total


@njit(cache=True, nogil=True)
def _left(
    codes: Any, scales: Any, zeros: Any, x: Any, bits: int, words: int, y: Any, first: int, last: int
) -> None:
    """y [cols] of groups first to last: y_g += sum_r x_r s_rg (q_rg - z_rg), four rows at a time."""
    rows, whole = codes.shape[0], y.shape[0] // 8
    offsets = np.zeros(last - first, np.float32)
    for row in range(0, rows, ROWS):
        count = min(ROWS, rows - row)
        stride = codes.strides[0] if count == ROWS else 0
        for part in range(1 if count == ROWS else count):
            at = row + part
            for g in range(first, last):
                a0, a1, a2, a3 = x[at] * scales[at, g], np.float32(0), np.float32(0), np.float32(0)
                offsets[g - first] += a0 * _zero(zeros, at, g, bits)
                if stride:
                    a1, a2, a3 = x[at + 1] * scales[at + 1, g], x[at + 2] * scales[at + 2, g], x[at + 3] * scales[at + 3, g]
                    offsets[g - first] += a1 * _zero(zeros, at + 1, g, bits)
                    offsets[g - first] += a2 * _zero(zeros, at + 2, g, bits)
                    offsets[g - first] += a3 * _zero(zeros, at + 3, g, bits)
                start = g * words
                _add_rows(
                    codes.ctypes.data + at * codes.strides[0] + start * bits, stride, bits, min(words, whole - start),
                    a0, a1, a2, a3, y.ctypes.data + start * 32,
                )  # fmt: skip
    for g in range(first, last):
        for col in range(8 * g * words, min(8 * (g + 1) * words, y.shape[0])):
            y[col] -= offsets[g - first]


def product(
    codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, width: int, cols: int, transposed: bool, x: Tensor
) -> Tensor:
    """y of one vector x float32, codes as in `groups.Packed`: per-OC [rows], or per-IC (transposed) [cols].

    Sums are float32 in an order that does not depend on the number of threads.
    """
    arrays = codes.contiguous().numpy(), scales.float().contiguous().numpy(), _numpy(zeros, codes)
    words = -(-width // 8)
    if transposed:
        return _product_left(arrays, bits, words, cols, x.contiguous().numpy())
    return _product_right(arrays, bits, words, width, cols, x)


def _numpy(zeros: Tensor | None, codes: Tensor) -> Any:
    return np.empty((codes.shape[0], 0), np.uint8) if zeros is None else zeros.contiguous().numpy()


def _product_right(arrays: Any, bits: int, words: int, width: int, cols: int, x: Tensor) -> Tensor:
    codes, scales, zeros = arrays
    rows, groups = codes.shape[0], scales.shape[1]
    padded = torch.nn.functional.pad(x, (0, groups * width - cols))
    sums = padded.view(groups, width).sum(1).numpy()
    vector = torch.nn.functional.pad(x, (0, -cols % 8)).contiguous().numpy()
    y = torch.empty(rows)
    out = y.numpy()
    _run(rows - 1, codes.size * 8 // bits, lambda first, last: _right(
        codes, scales, zeros, vector, sums, bits, words, out, first, last))  # fmt: skip
    end = slice(rows - 1, rows)  # a word is read as four bytes: behind the last row there are none
    _right(_roomy(codes[end]), scales[end], zeros[end], vector, sums, bits, words, out[end], 0, 1)
    return y


def _product_left(arrays: Any, bits: int, words: int, cols: int, x: Any) -> Tensor:
    codes, scales, zeros = arrays
    rows, groups = codes.shape[0], scales.shape[1]
    y = torch.zeros(-(-cols // 8) * 8)
    out, end = y.numpy(), slice(rows - 1, rows)
    last_row = _roomy(codes[end])

    def work(first: int, last: int) -> None:
        _left(codes[:-1], scales[:-1], zeros[:-1], x[:-1], bits, words, out, first, last)
        _left(last_row, scales[end], zeros[end], x[end], bits, words, out, first, last)

    _run(groups, codes.size * 8 // bits, work)
    return y[:cols]


def _roomy(row: Any) -> Any:
    """A copy of one row with room behind it."""
    wide = np.zeros((1, row.shape[1] + 4), np.uint8)
    wide[:, :-4] = row
    return wide


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="matvec")


def _run(count: int, codes: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) on parts of range(count), on torch's number of threads where that is worth it."""
    workers = min(torch.get_num_threads(), max(1, codes // CHUNK), max(1, count))
    if workers == 1:
        return work(0, count)
    step = -(-count // (workers * ROWS)) * ROWS
    bounds = [(first, min(first + step, count)) for first in range(0, count, step)]
    waiting: list[Future[None]] = [_pool(workers).submit(work, *pair) for pair in bounds]
    for future in waiting:
        future.result()
    return None
