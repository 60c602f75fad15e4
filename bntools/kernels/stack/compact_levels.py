"""Integer levels in memory: four or eight bits each, and a list of the few that need more."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.entropy.unbounded_levels import _jit

_TILE = 128  # rows turned over at once
_LISTED = 6  # bytes of a level in the list


class CompactLevels(NamedTuple):
    """Levels [rows, cols], most of them codes of `bits` 4 or 8, level + 2^(bits - 1).

    words [rows, ceil(cols / 8) * bits / 4] uint32: eight codes in one word, or in two, the first in the lowest bits.
    Levels that are no code stand in the list, their code being that of 0: the list has col int32 and value int16
    [n], a row's from start[row] to start[row + 1], start [rows + 1] int32.
    """

    words: NDArray[np.uint32]
    bits: int
    cols: int
    start: NDArray[np.int32]
    col: NDArray[np.int32]
    value: NDArray[np.int16]

    @property
    def rows(self) -> int:
        return len(self.words)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.words, self.start, self.col, self.value))


def compact(levels: NDArray[np.int16]) -> CompactLevels:
    """Levels [cols, rows] in the number of bits that takes fewer bytes."""
    cols, rows = levels.shape
    small, wide = np.zeros((2, rows), np.int32)
    busy = np.zeros((2, cols), np.int32)
    _count(levels, small, wide, busy)
    counts, sizes = (small, wide), (4 * rows * -(-cols // 8), 8 * rows * -(-cols // 8))
    narrow = sizes[0] + _LISTED * int(small.sum()) <= sizes[1] + _LISTED * int(wide.sum())
    bits, listed, there = (4, counts[0], busy[0]) if narrow else (8, counts[1], busy[1])
    words = np.empty((rows, -(-cols // 8) * bits // 4), np.uint32)
    _fill(levels, bits, words)
    start = np.zeros(rows + 1, np.int32)
    np.cumsum(listed, out=start[1:])
    col, value = np.empty(start[-1], np.int32), np.empty(start[-1], np.int16)
    _list(levels, 1 << (bits - 1), np.flatnonzero(there), start[:-1].copy(), col, value)
    return CompactLevels(words, bits, cols, start, col, value)


def expand(levels: CompactLevels) -> NDArray[np.int16]:
    """The specification: levels [rows, cols]."""
    places = np.arange(0, 32, levels.bits, dtype=np.uint32)
    codes = (levels.words[:, :, None] >> places) & np.uint32((1 << levels.bits) - 1)
    wide = codes.reshape(levels.rows, -1)[:, : levels.cols].astype(np.int16) - np.int16(1 << levels.bits - 1)
    for row in range(levels.rows):
        mine = slice(levels.start[row], levels.start[row + 1])
        wide[row, levels.col[mine]] = levels.value[mine]
    return wide


@_jit
def _outside(level, half):  # pragma: no cover - compiled
    return np.int32(np.uint32(np.int32(level) + half) >= np.uint32(2 * half))


@_jit
def _count(levels, small, wide, busy):  # pragma: no cover - compiled
    """Levels that are no code of 4 or of 8 bits, by row and by column."""
    for col in range(levels.shape[0]):
        line, first, second = levels[col], np.int32(0), np.int32(0)
        for row in range(levels.shape[1]):
            a, b = _outside(line[row], np.int32(8)), _outside(line[row], np.int32(128))
            small[row] += a
            wide[row] += b
            first += a
            second += b
        busy[0, col], busy[1, col] = first, second


@_jit
def _code(level, half):  # pragma: no cover - compiled
    """The code of a level; of 0 where it has none."""
    code = np.uint32(np.int32(level) + half)
    return code if code < np.uint32(2 * half) else np.uint32(half)


@_jit
def _fill(levels, bits, words):  # pragma: no cover - compiled
    half, last = np.int32(1 << (bits - 1)), levels.shape[0] - 1
    each, step = 32 // bits, np.uint32(bits)
    for start in range(0, levels.shape[1], _TILE):
        stop = min(start + _TILE, levels.shape[1])
        for at in range(words.shape[1]):
            first = at * each
            l0, l1 = levels[min(first, last)], levels[min(first + 1, last)]
            l2, l3 = levels[min(first + 2, last)], levels[min(first + 3, last)]
            for row in range(start, stop):
                low = _code(l0[row], half) | _code(l1[row], half) << step
                words[row, at] = low | (_code(l2[row], half) | _code(l3[row], half) << step) << (step + step)
            if bits == 4:
                l0, l1 = levels[min(first + 4, last)], levels[min(first + 5, last)]
                l2, l3 = levels[min(first + 6, last)], levels[min(first + 7, last)]
                for row in range(start, stop):
                    low = _code(l0[row], half) | _code(l1[row], half) << np.uint32(4)
                    high = _code(l2[row], half) | _code(l3[row], half) << np.uint32(4)
                    words[row, at] |= (low | high << np.uint32(8)) << np.uint32(16)


@_jit
def _list(levels, half, cols, place, col, value):  # pragma: no cover - compiled
    for at in cols:
        for row in range(levels.shape[1]):
            if _outside(levels[at, row], np.int32(half)):
                col[place[row]], value[place[row]] = at, levels[at, row]
                place[row] += 1
