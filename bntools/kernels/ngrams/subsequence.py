"""Length of the longest common subsequence of token ids, 64 positions at a time in one word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.ngrams.loops import intern, lookup, shift_for


def lcs_lengths(
    hyp: NDArray[Any], hyp_start: NDArray[Any], hyp_len: NDArray[Any],
    refs: NDArray[Any], ref_start: NDArray[Any], ref_len: NDArray[Any],
) -> NDArray[np.int32]:  # fmt: skip
    """[B] LCS of ids hyp[start : start + length] and refs[...] of each row; ids of any integer type.

    Bit-parallel (Crochemore et al. 2001, recurrence of Hyyro 2004), carried from word to word of the
    hypothesis, so memory is linear: O(L M / 64) time, 40 bytes a token of the longest row.
    """
    lengths = np.zeros(len(hyp_len), np.int32)
    if len(lengths):
        _lcs_rows(hyp, hyp_start, hyp_len, refs, ref_start, ref_len, lengths)
    return lengths


def lcs_reference(a: Sequence[int], b: Sequence[int]) -> int:
    """The specification: the textbook recurrence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b, 1):
            row[j] = before[j - 1] + 1 if x == y else max(before[j], row[j - 1])
    return row[-1]


@numba.njit(cache=True, nogil=True)
def _lcs_rows(hyp, hyp_start, hyp_len, refs, ref_start, ref_len, lengths):
    long, wide = hyp_len.max(), max(ref_len.max(), 0)
    slots, owner = np.empty(1 << (64 - shift_for(long)), np.int32), np.empty(long + 2, np.int64)
    name, mask = np.empty(long, np.int32), np.zeros(long + 1, np.uint64)
    other, carry = np.empty(wide, np.int32), np.empty(wide, np.uint64)
    for b in range(len(hyp_len)):
        row = hyp[hyp_start[b] : hyp_start[b] + hyp_len[b]]
        shift = shift_for(len(row))
        intern(row, len(row), shift, slots, owner, name)
        kept = 0
        for j in range(ref_len[b]):
            other[kept] = lookup(refs[ref_start[b] + j], shift, slots, owner)
            kept += other[kept] != 0
        lengths[b] = _lcs(name[: len(row)], other[:kept], mask, carry)


@numba.njit(cache=True, nogil=True)
def _lcs(name, other, mask, carry):
    """mask [names] is zero before and after; carry [len(other)] is overwritten."""
    carry[: len(other)] = 0
    length = 0
    for start in range(0, len(name), 64):
        count = min(64, len(name) - start)
        for i in range(count):
            mask[name[start + i]] |= np.uint64(1) << np.uint64(i)
        state = ~np.uint64(0)
        for j in range(len(other)):
            here = state & mask[other[j]]
            first = state + here
            total = first + carry[j]
            carry[j] = np.uint64(first < state) | np.uint64(total < first)
            state = total | (state & ~mask[other[j]])
        for i in range(count):
            length += ((state >> np.uint64(i)) & np.uint64(1)) == np.uint64(0)
            mask[name[start + i]] = 0
    return length
