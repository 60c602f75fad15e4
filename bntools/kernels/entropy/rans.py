"""Static range asymmetric numeral systems (rANS): columns of small integers to 16-bit words and back, lane by lane.

A lane is a run of consecutive columns coded with one state, so lanes decode independently: a thread a lane on a GPU,
a run of lanes a thread on a CPU. Every column may mix tables: the table of a symbol is its row's class plus its
column's class, clamped, and on a trellis the set its state allows (`kernels.trellis`). The arithmetic is integer and
exact: the same words on any machine (J. Duda, arXiv 1311.2540; the variant with a 32-bit state and 16-bit words).

Cost of decoding a weight: two bits to half a byte read, one byte of level written, about a dozen integer operations
and two table look-ups that stay in the second-level cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

PRECISION = 14  # bits of a probability
TOTAL = 1 << PRECISION
LIMIT = 127  # levels beyond are escaped
SYMBOLS = 2 * LIMIT + 2  # -LIMIT .. LIMIT and the escape
ESCAPE = SYMBOLS - 1
CLASSES = 64
_ESCAPE_BITS = 8  # an escaped level is two bytes, each one uniform symbol
_LOW = 1 << 16  # the state lies in [_LOW, _LOW << 16)

Array = NDArray[np.generic]


def normalize(counts: Array) -> NDArray[np.uint16]:
    """Frequencies summing to 2^14 a row, at least 1 for every symbol that occurs and for the escape.

    counts: [tables, SYMBOLS] integers. The remainder goes where it costs the fewest bits. A row that never occurs
    codes nothing but the escape.
    """
    rows = np.asarray(counts, dtype=np.int64)
    result = np.zeros(rows.shape, dtype=np.uint16)
    for row, out in zip(rows, result, strict=True):
        out[:] = _normalize_row(row)
    return result


def _normalize_row(row: Array) -> Array:
    seen = row.astype(np.float64)
    seen[ESCAPE] = max(seen[ESCAPE], 1e-9)
    used = seen > 0
    share = seen / seen.sum() * TOTAL
    counts = np.where(used, np.maximum(1, np.floor(share)), 0).astype(np.int64)
    while (missing := TOTAL - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = used & (counts + step >= 1)
        # bits gained or lost by one more or one less slot for a symbol seen so often
        ratio = np.maximum(counts + step, 1) / np.maximum(counts, 1)
        worth = np.where(free, seen * np.log2(ratio), -np.inf)
        best = np.argsort(-worth, kind="stable")[: min(abs(missing), max(1, int(free.sum()) // 4))]
        counts[best] += step
    return counts


def cost_bits(frequencies: NDArray[np.uint16], counts: Array) -> float:
    """Bits the tables spend on symbols seen so often: -sum n log2(f / 2^14), escapes with their two bytes."""
    f = frequencies.astype(np.float64)
    bits = np.where(np.asarray(counts, dtype=np.int64) > 0, PRECISION - np.log2(np.maximum(f, 1)), 0.0)
    return float((np.asarray(counts) * bits).sum() + 2 * _ESCAPE_BITS * np.asarray(counts)[..., ESCAPE].sum())


def cheapest(frequencies: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Bits of the likeliest symbol of each table, an escape with its two bytes."""
    bits = np.log2(TOTAL) - np.log2(np.maximum(frequencies.astype(np.float64), 0.5))
    bits[..., ESCAPE] += 2 * _ESCAPE_BITS
    return bits.min(-1)


def least_bits(costs: NDArray[np.float64], row_class: Array, col_class: Array) -> float:
    """Bits that weights of these classes cost at least, each being the likeliest symbol of its class.

    costs: of `cheapest`, of the tables of the levels.
    """
    reach = 4 * CLASSES  # beyond what any writer needs
    rows, cols = (
        np.bincount(np.asarray(side).clip(-reach, reach).astype(np.int64) + reach)
        for side in (row_class, col_class)
    )
    sums = np.convolve(rows.astype(np.float64), cols)
    classes = np.clip(np.arange(len(sums)) - 2 * reach, 0, CLASSES - 1)
    return float(sums @ costs.reshape(CLASSES, -1).min(1)[classes])


def cumulative(frequencies: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Frequency and start of every symbol in one word, f << 16 | start: [tables, SYMBOLS] uint32."""
    f = frequencies.astype(np.uint32)
    start = np.cumsum(f, axis=1, dtype=np.uint32) - f
    return (f << np.uint32(16) | start).astype(np.uint32, copy=False)


def slots(frequencies: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The symbol of each of the 2^14 slots: [tables, 2^14] uint8. Every row must sum to 2^14."""
    symbols = np.arange(SYMBOLS, dtype=np.uint8)
    return np.stack([np.repeat(symbols, row.astype(np.int64)) for row in frequencies])


@numba.njit(cache=True, nogil=True)
def _put(state, frequency, start, words, position):  # pragma: no cover - compiled
    """One symbol into the state; words are written from the end of the buffer towards its start."""
    f = np.uint64(frequency)
    if state >= f << np.uint64(18):
        position -= 1
        words[position] = np.uint16(state & np.uint64(0xFFFF))
        state >>= np.uint64(16)
    quotient = state // f
    return (quotient << np.uint64(14)) + (state - quotient * f) + np.uint64(start), position


@numba.njit(cache=True, nogil=True)
def _encode(levels, tables, packed, words):  # pragma: no cover - compiled
    """Words of one lane, at the end of `words`; returns the place of the first. The last symbol is coded first."""
    state = np.uint64(65536)
    position = words.shape[0]
    for at in range(levels.shape[0] - 1, -1, -1):
        level = np.int64(levels[at])
        symbol = level + 127
        if (
            level < -127 or level > 127 or packed[tables[at], symbol] < 65536
        ):  # a level its table does not know
            symbol = np.int64(255)
            raw = level + 32768
            state, position = _put(state, 64, (raw & 255) << 6, words, position)
            state, position = _put(state, 64, (raw >> 8) << 6, words, position)
        entry = np.int64(packed[tables[at], symbol])
        state, position = _put(state, entry >> 16, entry & 0xFFFF, words, position)
    words[position - 1] = np.uint16(state & np.uint64(0xFFFF))
    words[position - 2] = np.uint16(state >> np.uint64(16))
    return position - 2


@numba.njit(cache=True, nogil=True)
def _refill(state, words, at):  # pragma: no cover - compiled
    if state < np.uint64(65536):
        if at >= words.shape[0]:
            return state, -1
        return state << np.uint64(16) | np.uint64(words[at]), at + 1
    return state, at


@numba.njit(cache=True, nogil=True)
def _registers(step):  # pragma: no cover - compiled
    """A machine of up to 8 states in three registers, eight bits a state, a state being the place of its bits."""
    even, odd, dense = np.uint64(0), np.uint64(0), np.uint64(0)
    for state in range(step.shape[0]):
        place = np.uint64(8 * state)
        even |= np.uint64(8 * step[state, 0]) << place
        odd |= np.uint64(8 * step[state, 1]) << place
        dense |= np.uint64(step[state, 2]) << place
    return even, odd, dense


@numba.njit(cache=True, nogil=True)
def _decode(words, row_class, col_class, sets, packed, symbols, step, levels):  # pragma: no cover - compiled
    """Levels [cols, rows] of one lane; False unless exactly all words lead back to the first state.

    sets: 2 on a trellis whose machine is `step` [states, 3] (next for even and odd, set), 1 without.
    """
    if words.shape[0] < 2 or words[0] == 0:  # no encoder leaves a state below 2^16
        return False
    state = np.uint64(words[0]) << np.uint64(16) | np.uint64(words[1])
    at = 2
    mask = np.uint64(16383)
    even, odd, dense = _registers(step)
    for col in range(levels.shape[0]):
        machine = np.uint64(0)
        line = levels[col]
        for row in range(line.shape[0]):
            table = min(max(np.int64(row_class[row]) + np.int64(col_class[col]), 0), 63) * sets
            if sets == 2:
                table += np.int64((dense >> machine) & np.uint64(1))
            slot = state & mask
            symbol = np.int64(symbols[table, slot])
            entry = np.uint64(packed[table, symbol])
            state = (entry >> np.uint64(16)) * (state >> np.uint64(14)) + slot - (entry & np.uint64(0xFFFF))
            state, at = _refill(state, words, at)
            level = symbol - 127
            if symbol == 255:
                if at < 0:
                    return False
                high = (state & mask) >> np.uint64(6)
                state = np.uint64(64) * (state >> np.uint64(14)) + (state & np.uint64(63))
                state, at = _refill(state, words, at)
                if at < 0:
                    return False
                low = (state & mask) >> np.uint64(6)
                state = np.uint64(64) * (state >> np.uint64(14)) + (state & np.uint64(63))
                state, at = _refill(state, words, at)
                level = np.int64(high << np.uint64(8) | low) - 32768
            if at < 0:
                return False
            line[row] = level
            if sets == 2:
                parity = np.uint64(0) - np.uint64(level & 1)  # all bits or none, not a branch to predict
                machine = ((even ^ ((even ^ odd) & parity)) >> machine) & np.uint64(255)
    return at == words.shape[0] and state == np.uint64(65536)


@numba.njit(cache=True, nogil=True)
def table_indices(levels, row_class, col_class, sets, step, out):  # pragma: no cover - compiled
    """Table of every level [cols, rows] of a lane: its class, and on a trellis the set of its state."""
    for col in range(levels.shape[0]):
        machine = np.int64(0)
        for row in range(levels.shape[1]):
            table = min(max(np.int64(row_class[row]) + np.int64(col_class[col]), 0), 63) * sets
            if sets == 2:
                table += step[machine, 2]
                machine = step[machine, levels[col, row] & 1]
            out[col, row] = table


@numba.njit(cache=True, nogil=True)
def _count(levels, tables, counts):  # pragma: no cover - compiled
    for at in range(levels.shape[0]):
        level = np.int64(levels[at])
        counts[tables[at], level + 127 if -127 <= level <= 127 else 255] += 1


def count(levels: NDArray[np.int16], tables: NDArray[np.uint8], rows: int) -> NDArray[np.int64]:
    """How often each symbol occurs under each of `rows` tables: [rows, SYMBOLS]."""
    counts = np.zeros((rows, SYMBOLS), dtype=np.int64)
    _count(levels.reshape(-1), tables.reshape(-1), counts)
    return counts


def encode_lane(
    levels: NDArray[np.int16], tables: NDArray[np.uint8], packed: NDArray[np.uint32]
) -> NDArray[np.uint16]:
    """The words of a lane. levels, tables: of one shape, coded in C order; packed: from `cumulative`."""
    words = np.empty(3 * levels.size + 4, dtype=np.uint16)
    start = _encode(levels.reshape(-1), tables.reshape(-1), packed, words)
    return words[start:].copy()


def decode_lane(
    words: NDArray[np.uint16], row_class: NDArray[np.int16], col_class: NDArray[np.int16], sets: int,
    packed: NDArray[np.uint32], symbols: NDArray[np.uint8], machine: NDArray[np.int64],
    levels: NDArray[np.int16],
) -> bool:  # fmt: skip
    """Fill levels [cols, rows] from the words of a lane; False for words that no encoder of ours wrote."""
    return bool(_decode(words, row_class, col_class, sets, packed, symbols, machine, levels))


def decode_lanes(
    words: Tensor, sizes: Tensor, row_class: Tensor, col_class: Tensor, lane: int, sets: int, packed: Tensor,
    symbols: Tensor, machine: NDArray[np.int64],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Levels [cols, rows] int16 of a matrix, and which of its lanes [lanes] bool are sound; on any device.

    words: of all lanes, one behind the other, uint16 (int16 where a device has no uint16: only the bits count).
    sizes [lanes]: words of each, int. row_class [rows], col_class [cols]: int16. lane: columns of a lane. packed
    [tables, 256] int32 (the bits of `cumulative`) and symbols [tables, 2^14] uint8. What lanes that are not sound
    hold is undefined, but within the levels' memory. Raises ValueError where sizes and shapes do not fit.
    """
    import torch

    cols = len(col_class)
    if len(sizes) != -(-cols // lane) or int(sizes.sum()) != len(words) or int(sizes.min()) < 0:
        raise ValueError(f"{len(sizes)} lanes of {len(words)} words do not make {cols} columns by {lane}")
    if words.is_cuda:
        from bntools.kernels.entropy import rans_gpu

        return rans_gpu.decode_lanes(
            words.view(torch.uint16), sizes, row_class, col_class, lane, sets, packed, symbols, machine
        )
    levels = np.zeros((cols, len(row_class)), dtype=np.int16)
    parts = np.split(words.view(torch.uint16).numpy(), sizes.numpy().cumsum()[:-1])
    row, col = row_class.numpy(), col_class.numpy()
    tables, chart = packed.numpy().view(np.uint32), symbols.numpy()
    good = [
        decode_lane(part, row, col[at : at + lane], sets, tables, chart, machine, levels[at : at + lane])
        for at, part in zip(range(0, cols, lane), parts, strict=True)
    ]
    return torch.from_numpy(levels), torch.tensor(good)
