"""Compiled reader of lines {"hyp": [ids], "refs": [[ids], ...]} as most programs write them.

What deviates in any way (other keys, another order, escapes, numbers of more than 64 bits) is left to `json`.
"""

# pyright: reportArgumentType=false
from __future__ import annotations

import numba
import numpy as np

HYP = np.frombuffer(b'"hyp"', np.uint8)
REFS = np.frombuffer(b'"refs"', np.uint8)
BAD = -1
LARGEST = np.uint64(2**63 - 1)


@numba.njit(cache=True, nogil=True)
def blank(text, at):
    """The next place that is no space."""
    while text[at] == 32 or text[at] == 9 or text[at] == 13:
        at += 1
    return at


@numba.njit(cache=True, nogil=True)
def expect(text, at, byte):
    """The place behind `byte` and the spaces around it, or BAD."""
    if at < 0:
        return BAD
    at = blank(text, at)
    return blank(text, at + 1) if text[at] == byte else BAD


@numba.njit(cache=True, nogil=True)
def key(text, at, name):
    """The place behind a key and its colon, or BAD."""
    if at < 0 or at + len(name) > len(text):
        return BAD
    for i in range(len(name)):
        if text[at + i] != name[i]:
            return BAD
    return expect(text, at + len(name), 58)


@numba.njit(cache=True, nogil=True)
def numbers(text, at, ids, count):
    """Read [1, 2, ...] into ids from `count` on; the place behind it or BAD, and the new count."""
    at = expect(text, at, 91)
    if at < 0:
        return BAD, count
    if text[at] == 93:
        return at + 1, count
    while True:
        negative = text[at] == 45
        at += negative
        begin, value = at, np.uint64(0)
        while 48 <= text[at] <= 57 and at - begin < 19:
            value = value * np.uint64(10) + np.uint64(text[at] - 48)
            at += 1
        if at == begin or value > LARGEST + np.uint64(negative) or (text[begin] == 48 and at > begin + 1):
            return BAD, count
        ids[count] = -np.int64(value) if negative else np.int64(value)
        count += 1
        at = blank(text, at)
        if text[at] == 93:
            return at + 1, count
        at = expect(text, at, 44)
        if at < 0:
            return BAD, count


@numba.njit(cache=True, nogil=True)
def line(text, at, hyp, own, refs, others, ref_cu, known):
    """One line: the place behind it or BAD, and the counts of hypothesis ids, reference ids and references."""
    at = key(text, expect(text, at, 123), HYP)
    at, own = numbers(text, at, hyp, own)
    at = key(text, expect(text, at, 44), REFS)
    at = expect(text, at, 91)
    while at >= 0:
        at, others = numbers(text, at, refs, others)
        if at < 0:
            break
        known += 1
        ref_cu[known] = others
        at = blank(text, at)
        if text[at] == 93:
            at = expect(text, at + 1, 125)
            return (at + 1 if at >= 0 and text[at] == 10 else BAD), own, others, known
        at = expect(text, at, 44)
    return BAD, own, others, known


@numba.njit(cache=True, nogil=True)
def lines(text, ends, hyp, hyp_cu, refs, ref_cu, ref_rows, regular):
    """Read the lines of `text` that end behind ends [K]; regular [K] says which could be read, how many could."""
    rows, at = 0, 0
    hyp_cu[0], ref_cu[0], ref_rows[0] = 0, 0, 0
    for k in range(len(ends)):
        after, own, _, known = line(
            text, at, hyp, hyp_cu[rows], refs, ref_cu[ref_rows[rows]], ref_cu, ref_rows[rows]
        )
        regular[k] = after == ends[k]
        if regular[k]:
            rows += 1
            hyp_cu[rows], ref_rows[rows] = own, known
        at = ends[k]
    return rows
