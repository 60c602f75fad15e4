"""The decoder of `rans` on a GPU: one lane a thread, each with its own state and place in the words."""

# pyright: reportIndexIssue=false, reportCallIssue=false, reportOperatorIssue=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

LANES = 32
"""Lanes of a program: one warp, so that asking whether any lane met an escape needs no shared memory."""


def decode_lanes(
    words: Tensor, sizes: Tensor, row_class: Tensor, col_class: Tensor, lane: int, sets: int, packed: Tensor,
    symbols: Tensor, machine: NDArray[np.int64],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Levels [cols, rows] int16 and good [lanes] bool, equal to `rans.decode_lanes`, whose arguments it takes.

    W [4096, 4096] at 3 bits: reads 6.3 MB of words and writes 33.5 MB of levels; the tables (2.1 MB of symbols, 0.13
    of frequencies) stay in the second-level cache. At full bandwidth 26 us on an A100 of 1.555 TB/s, 12 us on an
    H100 of 3.35 TB/s. 72 machine instructions a weight (counted in the sm_80 cubin, trellis, no escape), 1.2 G in
    all: 62 us of an A100's issue slots (19.5 T lanes/s), 37 us of an H100's (33 T). Neither binds first: lanes of
    2^15 weights make 512 threads of this matrix, each a chain of 32768 steps of two or three dependent look-ups. At
    an estimated 400 cycles a step that is 10 ms, whatever the width up to some 200,000 lanes, so matrices are best
    decoded side by side, on several streams. Computed, never run on a GPU. No word out of bounds is read.
    """
    rows, cols, count = len(row_class), len(col_class), len(sizes)
    levels = torch.empty(cols, rows, dtype=torch.int16, device=words.device)
    good = torch.empty(count, dtype=torch.int32, device=words.device)
    starts = sizes.long().cumsum(0) - sizes
    even, odd, dense = _machine(machine)
    decode_kernel[(triton.cdiv(count, LANES),)](
        levels, good, words, starts, sizes.long(), row_class, col_class, packed, symbols, rows, cols, lane,
        count, SETS=sets, EVEN=even, ODD=odd, DENSE=dense, LANES=LANES, num_warps=1,
    )  # fmt: skip
    return levels, good != 0


def _machine(machine: NDArray[np.int64]) -> tuple[int, int, int]:
    """Next states for even and for odd levels, four bits a state, and sets, one bit a state."""
    even, odd, dense = machine.T.tolist()
    nibbles = [sum(state << 4 * at for at, state in enumerate(states)) for states in (even, odd)]
    return nibbles[0], nibbles[1], sum(bit << at for at, bit in enumerate(dense))


@triton.jit
def refill(state, at, end, active, words):
    """The next word into states below 2^16; a lane without words goes on with zeros, past its end for good."""
    need = active & (state < 65536)
    word = tl.load(words + at, mask=need & (at < end), other=0).to(tl.uint32)
    return tl.where(need, (state << 16) | word, state), at + need.to(tl.int64)


@triton.jit
def take_byte(state, at, end, escaped, words):
    """One of 256 symbols of equal frequency, in the lanes that are escaped."""
    slot = state & 16383
    state = tl.where(escaped, 64 * (state >> 14) + (slot & 63), state)
    state, at = refill(state, at, end, escaped, words)
    return (slot >> 6).to(tl.int32), state, at


@triton.jit
def decode_kernel(
    levels, good, words, starts, sizes, row_class, col_class, packed, symbols, rows, cols, lane, count,
    SETS: tl.constexpr, EVEN: tl.constexpr, ODD: tl.constexpr, DENSE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """levels [cols, rows] and good [count] of LANES lanes."""
    which = tl.program_id(0) * LANES + tl.arange(0, LANES)
    here = which < count
    at = tl.load(starts + which, mask=here, other=0)
    end = at + tl.load(sizes + which, mask=here, other=0)
    high = tl.load(words + at, mask=here & (at < end), other=0).to(tl.uint32)
    low = tl.load(words + at + 1, mask=here & (at + 1 < end), other=0).to(tl.uint32)
    state = (high << 16) | low
    sound = here & (high > 0)
    at += 2
    for step in range(lane):
        col = which.to(tl.int64) * lane + step
        active = here & (col < cols)
        column = tl.load(col_class + col, mask=active, other=0).to(tl.int32)
        machine = tl.zeros((LANES,), tl.int32)
        for row in range(rows):
            sum_ = tl.load(row_class + row).to(tl.int32) + column
            table = tl.minimum(tl.maximum(sum_, 0), 63) * SETS
            if SETS == 2:
                table += (DENSE >> machine) & 1
            slot = state & 16383
            symbol = tl.load(symbols + table * 16384 + slot.to(tl.int32), mask=active, other=0).to(tl.int32)
            entry = tl.load(packed + table * 256 + symbol, mask=active, other=0).to(tl.uint32, bitcast=True)
            moved = (entry >> 16) * (state >> 14) + slot - (entry & 65535)
            state = tl.where(active, moved, state)
            state, at = refill(state, at, end, active, words)
            level = symbol - 127
            escaped = active & (symbol == 255)
            if tl.max(escaped.to(tl.int32), 0) > 0:
                upper, state, at = take_byte(state, at, end, escaped, words)
                lower, state, at = take_byte(state, at, end, escaped, words)
                level = tl.where(escaped, ((upper << 8) | lower) - 32768, level)
            if SETS == 2:
                machine = (tl.where((level & 1) == 1, ODD, EVEN) >> (machine * 4)) & 7
            tl.store(levels + col * rows + row, level.to(tl.int16), mask=active)
    tl.store(good + which, (sound & (at == end) & (state == 65536)).to(tl.int32), mask=here)
