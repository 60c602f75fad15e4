"""One vector times packed codes on a CPU: eight codes a register, unpacked on the way, never stored.

Eight codes of b bits are one little-endian word of b bytes. Up to 4 bits, a word is spread to eight lanes, each lane
is masked to its own code where it stands, and the power of two by which it is too large goes into the vector: a
load, a mask, a conversion and a multiply-add for eight codes, against the load and multiply-add of a dense float32,
which reads 32 / b times the bytes. From 5 bits on, two words of four codes are shifted lane by lane. Four rows at a
time share the loads of the vector.

The vector instructions are written as LLVM IR, since numba leaves LLVM's superword vectorizer off and its loop
vectorizer does not see eight codes in one word.
"""

# pyright: reportCallIssue=false
# (numba passes the typing context to an intrinsic, which its decorator's types do not say)
from __future__ import annotations

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
NARROW = 4
"""Bits up to which a word of eight codes fits 32 bits."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_WORDS, _LANES = ir.VectorType(_I32, 8), ir.VectorType(ir.FloatType(), 8)
_NUMBERS = ir.Constant(_WORDS, list(range(8)))
_FIRST = ir.Constant(_WORDS, [0] * 8)
_NOTHING = ir.Constant(_LANES, [0.0] * 8)
_HALVES = ir.Constant(_WORDS, [0] * 4 + [8] * 4)


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """One scalar in all eight lanes."""
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), _FIRST)


def _word(builder: Any, address: Any) -> Any:
    """Four bytes in all eight lanes."""
    word = builder.load(builder.inttoptr(address, _I32.as_pointer()), align=1)
    return _spread(builder, word, _WORDS)


def _narrow(builder: Any, bits: Any) -> Callable[[Any], Any]:
    """Emit the codes of a word, lane j as code * 2^(b j); of 4 bits, the last as (code - 8) * 2^28.

    Conversion is signed, so the top code of 32 bits gets its sign flipped first.
    """
    places = builder.mul(_spread(builder, bits, _WORDS), _NUMBERS)
    low = builder.sub(builder.shl(_I32(1), bits), _I32(1))
    mask = builder.shl(_spread(builder, low, _WORDS), places)
    flip = builder.select(builder.icmp_unsigned("==", bits, _I32(NARROW)), _I32(1 << 31), _I32(0))
    sign = builder.insert_element(ir.Constant(_WORDS, [0] * 8), flip, _I32(7))

    def unpack(address: Any) -> Any:
        fields = builder.and_(_word(builder, address), mask)
        return builder.sitofp(builder.xor(fields, sign), _LANES)

    return unpack


def _wide(builder: Any, bits: Any) -> Callable[[Any], Any]:
    """Emit the codes of a word: lanes 0 to 3 from its start, 4 to 7 from the byte where code 4 starts."""
    half = builder.mul(bits, _I32(4))
    near = builder.mul(_spread(builder, bits, _WORDS), ir.Constant(_WORDS, [0, 1, 2, 3, 0, 1, 2, 3]))
    inside = _spread(builder, builder.and_(half, _I32(7)), _WORDS)
    shifts = builder.add(near, builder.mul(inside, ir.Constant(_WORDS, [0] * 4 + [1] * 4)))
    mask = _spread(builder, builder.sub(builder.shl(_I32(1), bits), _I32(1)), _WORDS)
    second = builder.zext(builder.lshr(half, _I32(3)), _I64)

    def unpack(address: Any) -> Any:
        later = _word(builder, builder.add(address, second))
        both = builder.shuffle_vector(_word(builder, address), later, _HALVES)
        return builder.sitofp(builder.and_(builder.lshr(both, shifts), mask), _LANES)

    return unpack


def _either(builder: Any, bits: Any, emit: Callable[[Callable[[Any], Any]], None]) -> None:
    """Emit a loop twice, for codes of up to 4 bits and for wider ones."""
    small = builder.trunc(bits, _I32)
    with builder.if_else(builder.icmp_signed("<=", bits, _I64(NARROW))) as (narrow, wide):
        with narrow:
            emit(_narrow(builder, small))
        with wide:
            emit(_wide(builder, small))


def _lanes_at(builder: Any, base: Any, index: Any) -> Any:
    return builder.inttoptr(builder.add(base, builder.mul(index, _I64(32))), _LANES.as_pointer())


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _rows(builder: Any, codes: Any, stride: Any) -> list[Any]:
    return [builder.add(codes, builder.mul(stride, _I64(row))) for row in range(ROWS)]


@intrinsic
def _dot_rows(
    typing_context: Any, codes: Any, stride: Any, bits: Any, x: Any, words: Any, whole: Any, scales: Any, groups: Any,
    step: Any, totals: Any,
) -> Any:  # fmt: skip
    """totals [4, 8] = sum over groups of s_rg * sum over words of codes [r, word] * x [word], each [8].

    codes, x, scales, totals: addresses. stride, step: bytes from a row of codes, of scales, to the next. words of a
    group, whole of a row.
    """
    signature = types.void(*(types.int64,) * 10)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = [cgutils.alloca_once_value(builder, _NOTHING) for _ in range(ROWS)]
        _either(builder, args[2], lambda unpack: _emit_dots(builder, unpack, args, found))
        for row, result in enumerate(found):
            builder.store(builder.load(result), _lanes_at(builder, args[-1], _I64(row)), align=4)
        return context.get_dummy_value()

    return signature, generate


def _emit_dots(builder: Any, unpack: Callable[[Any], Any], args: Any, found: list[Any]) -> None:
    """The loops of `_dot_rows` over groups and their words; the results go to the four places of `found`."""
    codes, stride, bits, x, words, whole, scales, groups, step, _ = args
    starts, scale_rows = _rows(builder, codes, stride), _rows(builder, scales, step)
    sums = [cgutils.alloca_once(builder, _LANES) for _ in range(ROWS)]
    with cgutils.for_range(builder, groups, intp=_I64) as outer:
        first = builder.mul(outer.index, words)
        left = builder.sub(whole, first)
        count = builder.select(builder.icmp_signed("<", left, words), left, words)
        for total in sums:
            builder.store(_NOTHING, total)
        with cgutils.for_range(builder, count, intp=_I64) as loop:
            word = builder.add(first, loop.index)
            part, at = builder.load(_lanes_at(builder, x, word), align=4), builder.mul(word, bits)
            for start, total in zip(starts, sums, strict=True):
                eight = unpack(builder.add(start, at))
                builder.store(_multiply_add(builder, eight, part, builder.load(total)), total)
        place = builder.mul(outer.index, _I64(4))
        for row, total, result in zip(scale_rows, sums, found, strict=True):
            scale = builder.load(builder.inttoptr(builder.add(row, place), ir.FloatType().as_pointer()))
            wide = _spread(builder, scale, _LANES)
            builder.store(_multiply_add(builder, builder.load(total), wide, builder.load(result)), result)


@intrinsic
def _add_rows(
    typing_context: Any,
    codes: Any,
    stride: Any,
    bits: Any,
    words: Any,
    a0: Any,
    a1: Any,
    a2: Any,
    a3: Any,
    y: Any,
) -> Any:
    """y [word] += sum over four rows of a_r * codes [r, word], each [8]; addresses, strides in bytes."""
    floats = (types.float32,) * ROWS
    signature = types.void(types.int64, types.int64, types.int64, types.int64, *floats, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes, stride, bits, words, *factors, y = args
        spread = [_spread(builder, factor, _LANES) for factor in factors]
        starts = _rows(builder, codes, stride)

        def emit(unpack: Callable[[Any], Any]) -> None:
            with cgutils.for_range(builder, words, intp=_I64) as loop:
                place = _lanes_at(builder, y, loop.index)
                total, step = builder.load(place, align=4), builder.mul(loop.index, bits)
                for start, factor in zip(starts, spread, strict=True):
                    total = _multiply_add(builder, unpack(builder.add(start, step)), factor, total)
                builder.store(total, place, align=4)

        _either(builder, bits, emit)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _load(typing_context: Any, address: Any) -> Any:
    """The four bytes at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _I32.as_pointer()), align=1)

    return types.int32(types.int64), generate


@njit(cache=True, nogil=True)
def _zero(row: int, group: int, bits: int) -> Any:
    """One packed zero of the row at an address; 2^(bits - 1) where there is none (0)."""
    if row == 0:
        return np.float32(1 << (bits - 1))
    at = group * bits
    return np.float32((_load(row + (at >> 3)) >> (at & 7)) & ((1 << bits) - 1))


@njit(cache=True, nogil=True)
def _places(bits: int) -> Any:
    """What lane j of a word has to be multiplied by."""
    places = np.ones(8, np.float32)
    if bits <= NARROW:
        for lane in range(8):
            places[lane] = np.float32(2.0 ** (-bits * lane))
    return places


@njit(cache=True, nogil=True)
def _roomy(rows: Any) -> Any:
    """The bytes of some rows with room behind them: words are read as four bytes at least."""
    room = np.zeros(rows.size + 8, np.uint8)
    room[: rows.size] = rows.ravel()
    return room


@njit(cache=True, nogil=True)
def _right(
    codes: Any, scales: Any, zeros: Any, x: Any, bits: int, words: int, y: Any, first: int, last: int
) -> None:
    """y [rows] for rows first to last: sum_g s_rg (q_rg . x_g - z_rg sum(x_g)); words of a group, the last's fewer."""
    rows, groups, whole, places = codes.shape[0], scales.shape[1], -(-x.shape[0] // 8), _places(bits)
    spread, sums = np.zeros(8 * whole, np.float32), np.zeros(groups, np.float32)
    tops = np.zeros(groups, np.float32)  # where the top code lost 8
    for g in range(groups):
        for col in range(8 * g * words, min(8 * (g + 1) * words, x.shape[0])):
            spread[col] = x[col] * places[col & 7]
            sums[g] += x[col]
            if bits == NARROW and col & 7 == 7:
                tops[g] += 8 * x[col]
    totals, end, room = np.empty(8 * ROWS, np.float32), _roomy(codes[rows - 1 :]), _roomy(zeros)
    row = first
    while row < last:
        count = ROWS if row + ROWS < rows and row + ROWS <= last else 1
        stride, step = (codes.strides[0], scales.strides[0]) if count == ROWS else (0, 0)
        base = end.ctypes.data if row == rows - 1 else codes.ctypes.data + row * codes.strides[0]
        _dot_rows(
            base, stride, bits, spread.ctypes.data, words, whole, scales.ctypes.data + row * scales.strides[0], groups,
            step, totals.ctypes.data,
        )  # fmt: skip
        for r in range(count):
            total = np.float32(0)
            place = room.ctypes.data + (row + r) * zeros.shape[1] if zeros.shape[1] else 0
            for g in range(groups):
                total += scales[row + r, g] * (tops[g] - _zero(place, g, bits) * sums[g])
            for lane in range(8):
                total += totals[8 * r + lane]
            y[row + r] = total
        row += count


@njit(cache=True, nogil=True)
def _left(
    codes: Any, scales: Any, zeros: Any, x: Any, bits: int, words: int, y: Any, first: int, last: int
) -> None:
    """y [8 * words of all groups], groups first to last: y_g = sum_r x_r s_rg (q_rg - z_rg), four rows at a time."""
    rows, whole, end, room = (
        codes.shape[0],
        y.shape[0] // 8,
        _roomy(codes[codes.shape[0] - 1 :]),
        _roomy(zeros),
    )
    offsets, sums = np.zeros(last - first, np.float32), np.zeros(last - first, np.float32)
    a = np.zeros(ROWS, np.float32)
    row = 0
    while row < rows:
        count = ROWS if row + ROWS < rows else 1
        stride = codes.strides[0] if count == ROWS else 0
        base = end.ctypes.data if row == rows - 1 else codes.ctypes.data + row * codes.strides[0]
        for g in range(first, last):
            a[:] = 0
            for r in range(count):
                place = room.ctypes.data + (row + r) * zeros.shape[1] if zeros.shape[1] else 0
                a[r] = x[row + r] * scales[row + r, g]
                offsets[g - first] += a[r] * _zero(place, g, bits)
                sums[g - first] += a[r]
            start = g * words
            _add_rows(
                base + start * bits, stride, bits, min(words, whole - start), a[0], a[1], a[2], a[3],
                y.ctypes.data + start * 32,
            )  # fmt: skip
        row += count
    places = _places(bits)
    for g in range(first, last):
        top = 8 * sums[g - first] if bits == NARROW else np.float32(0)
        for col in range(8 * g * words, min(8 * (g + 1) * words, y.shape[0])):
            y[col] = y[col] * places[col & 7] - offsets[g - first] + (top if col & 7 == 7 else np.float32(0))


def product(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bits: int,
    width: int,
    cols: int,
    transposed: bool,
    x: Tensor,
) -> Tensor:
    """y of one vector x: per-OC [rows], or per-IC (transposed) [cols] float32; arguments as in `groups.Packed`.

    Groups must start on whole words: one group a row, or width a multiple of 8. There must be a row.

    Sums are float32 in an order that does not depend on the number of threads.
    """
    arrays = _array(codes), _array(scales.float()), _NO_ZEROS if zeros is None else _array(zeros)
    words, kernel = -(-width // 8), _left if transposed else _right
    vector = x.float().reshape(-1).numpy()
    count = arrays[1].shape[1] if transposed else codes.shape[0]
    y = np.zeros(-(-cols // 8) * 8, np.float32) if transposed else np.empty(count, np.float32)
    workers = min(codes.numel() * 8 // bits // CHUNK, count, torch.get_num_threads())
    if workers <= 1:
        kernel(*arrays, vector, bits, words, y, 0, count)
    else:
        share(workers, count, lambda first, last: kernel(*arrays, vector, bits, words, y, first, last))
    result = torch.from_numpy(y)
    return result[:cols] if transposed else result


_NO_ZEROS = np.empty((0, 0), np.uint8)


def _array(tensor: Tensor) -> Any:
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="matvec")


def share(workers: int, count: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) on about equal parts of range(count), one a thread."""
    step = -(-count // (workers * ROWS)) * ROWS
    bounds = [(first, min(first + step, count)) for first in range(0, count, step)]
    waiting: list[Future[None]] = [_pool(workers).submit(work, *pair) for pair in bounds]
    for future in waiting:
        future.result()
