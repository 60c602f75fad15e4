"""Several rANS lanes at once on a CPU, in one call: a lane's next symbol waits for its last, another lane's does not.

Four lanes step in turn, in less than half the time of one after the other: a symbol is two look-ups and a product,
each waiting for the one before it. Words are read whether they are needed or not, so no branch waits for a state.
One call decodes all the lanes it is given, since every return to the interpreter may have to wait for it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.entropy.rans import _registers

_ABREAST = 4
_jit: Any = numba.njit(cache=True, nogil=True)


def decode_run(
    words: NDArray[np.uint16], bounds: NDArray[np.int64], row_class: NDArray[np.int16],
    col_class: NDArray[np.int16], lane: int, sets: int, packed: NDArray[np.uint32], symbols: NDArray[np.uint8],
    machine: NDArray[np.int64], levels: NDArray[np.int16],
) -> bool:  # fmt: skip
    """Fill levels [cols, rows] as `rans.decode_lane` does for each lane; False where one of them is damaged.

    bounds [lanes + 1]: where the lanes begin in `words`, and where the last one ends. lane: columns of a lane, all
    but the last. The rest is as in `rans.decode_lane`.
    """
    states = tuple(np.uint64(part) for part in _registers(machine)) if sets == 2 else None
    return bool(_run(words, bounds, row_class, col_class, lane, packed, symbols, states, levels))


@_jit
def _refill(state, at, words):  # pragma: no cover - compiled
    """The next word into a state below 2^16; behind all words the last one again, past a lane's end for good."""
    need = state < np.uint64(65536)
    word = np.uint64(words[min(at, words.shape[0] - 1)])
    return state << np.uint64(16) | word if need else state, at + np.int64(need)


@_jit
def _step(state, at, words, table, packed, symbols):  # pragma: no cover - compiled
    slot = state & np.uint64(16383)
    symbol = np.int64(symbols[table, slot])
    entry = np.uint64(packed[table, symbol])
    state = (entry >> np.uint64(16)) * (state >> np.uint64(14)) + slot - (entry & np.uint64(0xFFFF))
    state, at = _refill(state, at, words)
    return state, at, symbol


@_jit
def _byte(state, at, words):  # pragma: no cover - compiled
    slot = state & np.uint64(16383)
    state, at = _refill(np.uint64(64) * (state >> np.uint64(14)) + (slot & np.uint64(63)), at, words)
    return slot >> np.uint64(6), state, at


@_jit
def _escaped(state, at, words):  # pragma: no cover - compiled
    high, state, at = _byte(state, at, words)
    low, state, at = _byte(state, at, words)
    return state, at, np.int64(high << np.uint64(8) | low) - 32768


@_jit
def _first(words, start, stop):  # pragma: no cover - compiled
    """A lane's first state; 0, which no encoder leaves, where it has none."""
    if stop - start < 2 or words[start] == 0:
        return np.uint64(0)
    return np.uint64(words[start]) << np.uint64(16) | np.uint64(words[start + 1])


@_jit
def _table(row, col, machine, states):  # pragma: no cover - compiled
    """Of a symbol. states: the machine of a trellis as `rans._registers` has it; None, a type of its own, without."""
    table = min(max(row + np.int64(col), 0), 63)
    if states is None:
        return table
    return 2 * table + np.int64((states[2] >> machine) & np.uint64(1))


@_jit
def _moved(machine, level, states):  # pragma: no cover - compiled
    if states is None:
        return machine
    parity = np.uint64(0) - np.uint64(level & 1)  # all bits or none
    return ((states[0] ^ ((states[0] ^ states[1]) & parity)) >> machine) & np.uint64(255)


@_jit
def _four(
    words, bounds, row_class, col_class, lane, packed, symbols, states, levels, spare
):  # pragma: no cover - compiled
    """Levels [cols, rows] of up to four lanes, the last one of them maybe shorter.

    What is behind a lane's end goes on being decoded, to nothing, into `spare`.
    """
    count, cols = min(4, len(bounds) - 1), len(levels)
    i1, i2, i3 = min(1, count - 1), min(2, count - 1), min(3, count - 1)
    s0, s1 = _first(words, bounds[0], bounds[1]), _first(words, bounds[i1], bounds[i1 + 1])
    s2, s3 = _first(words, bounds[i2], bounds[i2 + 1]), _first(words, bounds[i3], bounds[i3 + 1])
    if min(min(s0, s1), min(s2, s3)) == 0:
        return False
    p0, p1, p2, p3 = bounds[0] + 2, bounds[i1] + 2, bounds[i2] + 2, bounds[i3] + 2
    last = cols - (count - 1) * lane  # columns of the last one
    end, state = np.int64(-1), np.uint64(0)
    for col in range(min(lane, cols)):
        m0 = m1 = m2 = m3 = np.uint64(0)
        if col == last:
            end, state = (p0, p1, p2, p3)[count - 1], (s0, s1, s2, s3)[count - 1]
        line0 = levels[col] if count > 1 or col < last else spare
        line1 = levels[lane + col] if count > 2 or (count == 2 and col < last) else spare
        line2 = levels[2 * lane + col] if count > 3 or (count == 3 and col < last) else spare
        line3 = levels[3 * lane + col] if count == 4 and col < last else spare
        c0, c1 = col_class[col], col_class[min(lane + col, cols - 1)]
        c2, c3 = col_class[min(2 * lane + col, cols - 1)], col_class[min(3 * lane + col, cols - 1)]
        for row in range(levels.shape[1]):
            r = np.int64(row_class[row])
            s0, p0, y0 = _step(s0, p0, words, _table(r, c0, m0, states), packed, symbols)
            s1, p1, y1 = _step(s1, p1, words, _table(r, c1, m1, states), packed, symbols)
            s2, p2, y2 = _step(s2, p2, words, _table(r, c2, m2, states), packed, symbols)
            s3, p3, y3 = _step(s3, p3, words, _table(r, c3, m3, states), packed, symbols)
            q0, q1, q2, q3 = y0 - 127, y1 - 127, y2 - 127, y3 - 127
            if max(max(y0, y1), max(y2, y3)) == 255:
                if y0 == 255:
                    s0, p0, q0 = _escaped(s0, p0, words)
                if y1 == 255:
                    s1, p1, q1 = _escaped(s1, p1, words)
                if y2 == 255:
                    s2, p2, q2 = _escaped(s2, p2, words)
                if y3 == 255:
                    s3, p3, q3 = _escaped(s3, p3, words)
            line0[row], line1[row], line2[row], line3[row] = q0, q1, q2, q3
            m0, m1 = _moved(m0, q0, states), _moved(m1, q1, states)
            m2, m3 = _moved(m2, q2, states), _moved(m3, q3, states)
    if end < 0:
        end, state = (p0, p1, p2, p3)[count - 1], (s0, s1, s2, s3)[count - 1]
    good = end == bounds[count] and state == 65536
    good &= count < 2 or (p0 == bounds[1] and s0 == 65536)
    good &= count < 3 or (p1 == bounds[2] and s1 == 65536)
    return good and (count < 4 or (p2 == bounds[3] and s2 == 65536))


@_jit
def _run(
    words, bounds, row_class, col_class, lane, packed, symbols, states, levels
):  # pragma: no cover - compiled
    spare = np.empty(levels.shape[1], np.int16)
    for at in range(0, len(bounds) - 1, _ABREAST):
        part = slice(at * lane, min((at + _ABREAST) * lane, len(levels)))
        some, classes = levels[part], col_class[part]
        if not _four(words, bounds[at:], row_class, classes, lane, packed, symbols, states, some, spare):
            return False
    return True
