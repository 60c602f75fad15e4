"""The compiled loops over bytes of codes: nearest word, best angle, tables of a query, scan of a range of rows."""

from __future__ import annotations

import numba
import numpy as np

WORDS = 256
LANES = 32
"""Vectors in a block: the bytes of one group stand together, so that the look-ups of a block need no index."""


@numba.njit(cache=True, nogil=True, fastmath=True)
def nearest_word(x, words, codes):  # type: ignore[no-untyped-def]
    """Index of the nearest word of `words` [d, 256] to each row of x [n, d], of equal ones the lowest."""
    n, d = x.shape
    apart, half = np.empty(WORDS, np.float32), np.zeros(WORDS, np.float32)
    for j in range(d):
        for k in range(WORDS):
            half[k] += np.float32(0.5) * words[j, k] * words[j, k]
    for i in range(n):
        for k in range(WORDS):
            apart[k] = half[k]
        for j in range(d):
            value = x[i, j]
            for k in range(WORDS):
                apart[k] -= value * words[j, k]
        least = apart[0]
        for k in range(WORDS):
            least = min(least, apart[k])
        for k in range(WORDS):
            if apart[k] == least:
                codes[i] = k
                break


@numba.njit(cache=True, nogil=True, fastmath=True)
def best_angle(x, words, start, codes):  # type: ignore[no-untyped-def]
    """One pass over the groups of each row: the word with which the whole decoded row makes the least angle to x."""
    n, groups = x.shape[0], len(start) - 1
    squares, inner = np.zeros((groups, WORDS), np.float32), np.empty(WORDS, np.float32)
    merit = np.empty(WORDS, np.float32)
    for g in range(groups):
        for j in range(start[g], start[g + 1]):
            for k in range(WORDS):
                squares[g, k] += words[j, k] * words[j, k]
    for i in range(n):
        along, length = np.float32(0), np.float32(0)
        for g in range(groups):
            k = codes[i, g]
            length += squares[g, k]
            for j in range(start[g], start[g + 1]):
                along += x[i, j] * words[j, k]
        for g in range(groups):
            old = codes[i, g]
            inner[:] = 0
            for j in range(start[g], start[g + 1]):
                value = x[i, j]
                for k in range(WORDS):
                    inner[k] += value * words[j, k]
            along -= inner[old]
            length -= squares[g, old]
            for k in range(WORDS):
                total = max(along + inner[k], np.float32(0))
                merit[k] = total * total / (length + squares[g, k] + np.float32(1e-30))
            most = merit[old]
            for k in range(WORDS):
                most = max(most, merit[k])
            best = old
            if merit[old] < most:
                for k in range(WORDS):
                    if merit[k] == most:
                        best = k
                        break
            codes[i, g] = best
            along += inner[best]
            length += squares[g, best]


@numba.njit(cache=True, nogil=True, fastmath=True)
def tables(query, order, start, words, result):  # type: ignore[no-untyped-def]
    """Products of one query with every word of every group: [groups, 256]."""
    for g in range(len(start) - 1):
        row = result[g]
        row[:] = 0
        for j in range(start[g], start[g + 1]):
            value = query[order[j]]
            for k in range(WORDS):
                row[k] += value * words[j, k]


@numba.njit(cache=True, nogil=True, fastmath=True)
def scan(blocks, table, first, last, factor, bias, offset, names, best, rows, held):  # type: ignore[no-untyped-def]
    """Put positions first to last - 1 of `blocks` [blocks, groups, 32] into the best [k]; returns how many it holds.

    A score is offset + bias + factor times the sum of the table's entries; best is ascending in (score, -name), the
    worst in front. `names` gives the row of a position.
    """
    scores = np.empty(LANES, np.float32)
    groups, k = blocks.shape[1], len(best)
    for b in range(first // LANES, (last + LANES - 1) // LANES):
        scores[:] = 0
        for g in range(groups):
            line, codes = table[g], blocks[b, g]
            for lane in range(LANES):
                scores[lane] += line[codes[lane]]
        base = b * LANES
        low, high = max(first - base, 0), min(last - base, LANES)
        for lane in range(low, high):
            i = base + lane
            value = offset + bias[i] + factor[i] * scores[lane]
            if held == k and value < best[0]:
                continue
            held = insert(value, names[i], best, rows, held)
    return held


@numba.njit(cache=True, nogil=True)
def insert(value, name, best, rows, held):  # type: ignore[no-untyped-def]
    """Put one score into a list kept ascending from its end: the worst of `held` at index k - held."""
    k = len(best)
    if held < k:
        place = k - held - 1
        held += 1
    else:
        if value < best[0] or (value == best[0] and name > rows[0]):
            return held
        place = 0
    while place + 1 < k and (
        best[place + 1] < value or (best[place + 1] == value and rows[place + 1] > name)
    ):
        best[place], rows[place] = best[place + 1], rows[place + 1]
        place += 1
    best[place], rows[place] = value, name
    return held


@numba.njit(cache=True, nogil=True)
def scan_cells(blocks, table, cells, starts, factor, bias, centre, names, best, rows):  # type: ignore[no-untyped-def]
    """Scan the positions of each cell, `centre` [C] added to their scores; fills best and rows [k], ascending."""
    held = 0
    for cell in cells:
        first, last = starts[cell], starts[cell + 1]
        if first < last:
            held = scan(blocks, table, first, last, factor, bias, centre[cell], names, best, rows, held)
