"""The entropy code spelled out: what the fast versions must equal, symbol by symbol and word by word."""

from __future__ import annotations

from collections.abc import Sequence

NEXT = ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5))
DENSE = (1, 0, 0, 1, 1, 1, 0, 0)


def encode(symbols: Sequence[tuple[int, int]]) -> list[int]:
    """Words of (frequency, start) pairs: rANS with a 32-bit state, the last symbol coded first."""
    state, words = 1 << 16, []
    for frequency, start in reversed(symbols):
        if state >= frequency << 18:
            words.append(state & 0xFFFF)
            state >>= 16
        state = (state // frequency << 14) + state % frequency + start
    return [state >> 16, state & 0xFFFF, *reversed(words)]


def pairs(level: int, row: Sequence[int]) -> list[tuple[int, int]]:
    """The symbols of one level under a table: itself, or the escape and two bytes."""
    symbol = level + 127 if abs(level) <= 127 else 255
    found = [(row[symbol], sum(row[:symbol]))]
    if symbol == 255:
        found += [(64, byte * 64) for byte in divmod(level + 32768, 256)]
    return found


def table(row: int, col: int, state: int, sets: int) -> int:
    """The table of a level: the clamped sum of its classes, and the set of the machine's state."""
    return min(max(row + col, 0), 63) * sets + (DENSE[state] if sets == 2 else 0)


def decode(words: Sequence[int], count: int, read_table) -> list[int]:
    """`count` levels; read_table(levels so far) gives the frequencies of the next. Ends in the first state."""
    state, rest, levels = words[0] << 16 | words[1], list(words[2:]), []

    def take(row: Sequence[int]) -> int:
        nonlocal state
        slot, symbol, start = state % 16384, 0, 0
        while slot >= start + row[symbol]:
            start, symbol = start + row[symbol], symbol + 1
        state = row[symbol] * (state >> 14) + slot - start
        if state < 1 << 16:
            state = state << 16 | rest.pop(0)
        return symbol

    for _ in range(count):
        symbol = take(read_table(levels))
        levels.append(symbol - 127 if symbol != 255 else take([64] * 256) * 256 + take([64] * 256) - 32768)
    assert state == 1 << 16
    assert not rest
    return levels


def multiples(levels: Sequence[int]) -> list[int]:
    """Half steps the levels of a column stand for on the trellis."""
    state, found = 0, []
    for k in levels:
        found.append(2 * k - DENSE[state] * ((k > 0) - (k < 0)))
        state = NEXT[state][k % 2]
    return found
