"""Inverted lists of small whole impacts: coded by differences of rows, searched exactly word by word."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Starts = NDArray[np.int64]


class Postings(NamedTuple):
    """Of word v the bytes start[v] up to before start[v + 1]: for each row that has it, rows ascending, the
    difference to the row before (the first to -1) in groups of 7 bits, lowest first, all but the last with the top
    bit set, then a byte of impact."""

    data: Bytes
    start: Starts


def build(words: NDArray[np.int64], impacts: Bytes, count: int) -> Postings:
    """Lists of `count` words from rows [n, k] of words and impacts; an impact of 0 is no posting."""
    row, column = np.nonzero(impacts)
    word, impact = words[row, column], impacts[row, column]
    order = np.lexsort((row, word))
    word, row, impact = word[order], row[order], impact[order]
    data = np.empty(11 * len(word), np.uint8)
    start = np.empty(count + 1, np.int64)
    _write(word, row, impact, data, start)
    return Postings(data[: start[-1]].copy(), start)


def lengths(postings: Postings, rows: int) -> NDArray[np.int64]:
    """Postings of each word [V]. Raises ValueError for lists that are not whole or name a row that is not there."""
    start = postings.start
    if start[0] != 0 or start[-1] != len(postings.data) or (np.diff(start) < 0).any():
        raise ValueError("lists do not cover the postings")
    result = np.empty(len(start) - 1, np.int64)
    if not _count(postings.data, start, rows, result):
        raise ValueError("a list of postings that is not whole")
    return result


def search(
    postings: Postings, words: NDArray[np.int64], impacts: Bytes, rows: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The k rows with the largest sums of products of impacts for each query [m, t], and the sums; of equal ones the
    lower row first. Every posting of every word of the query is added up, none is guessed."""
    best, sums = np.empty((len(words), k), np.int64), np.empty((len(words), k), np.int32)
    _search(postings.data, postings.start, words, impacts, rows, best, sums)
    return best, sums


@numba.njit(cache=True, nogil=True)
def _write(word, row, impact, data, start):  # type: ignore[no-untyped-def]
    at, of = 0, 0
    start[0] = 0
    before = -1
    for i in range(len(word)):
        while of < word[i]:
            of += 1
            start[of] = at
            before = -1
        step = row[i] - before
        before = row[i]
        while step > 127:
            data[at] = (step & 127) | 128
            step >>= 7
            at += 1
        data[at] = step
        data[at + 1] = impact[i]
        at += 2
    while of < len(start) - 1:
        of += 1
        start[of] = at


@numba.njit(cache=True, nogil=True)
def _count(data, start, rows, result):  # type: ignore[no-untyped-def]
    for v in range(len(start) - 1):
        at, last, row, count = start[v], start[v + 1], -1, 0
        while at < last:
            step, shift = 0, 0
            while at < last and data[at] > 127:
                step |= (np.int64(data[at]) & 127) << shift
                shift += 7
                at += 1
                if shift > 56:
                    return False
            if at + 1 >= last:
                return False
            step |= np.int64(data[at]) << shift
            at += 2
            row += step
            count += 1
            if step < 1 or row >= rows:
                return False
        result[v] = count
    return True


@numba.njit(cache=True, nogil=True)
def _search(data, start, words, impacts, rows, best, sums):  # type: ignore[no-untyped-def]
    total = np.empty(rows, np.int32)
    k = best.shape[1]
    for i in range(len(words)):
        total[:] = 0
        for j in range(words.shape[1]):
            weight = np.int32(impacts[i, j])
            if weight == 0:
                continue
            at, last, row = start[words[i, j]], start[words[i, j] + 1], -1
            while at < last:
                step, shift = np.int64(data[at]), 7
                at += 1
                if step > 127:
                    step &= 127
                    while data[at] > 127:
                        step |= (np.int64(data[at]) & 127) << shift
                        shift += 7
                        at += 1
                    step |= np.int64(data[at]) << shift
                    at += 1
                row += step
                total[row] += weight * np.int32(data[at])
                at += 1
        held = 0
        for row in range(rows):
            value = total[row]
            if held == k and value <= sums[i, k - 1]:
                continue
            place = held if held < k else k - 1
            held = min(held + 1, k)
            while place > 0 and sums[i, place - 1] < value:
                sums[i, place], best[i, place] = sums[i, place - 1], best[i, place - 1]
                place -= 1
            sums[i, place], best[i, place] = value, row
