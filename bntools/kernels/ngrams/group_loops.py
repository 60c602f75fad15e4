"""Compiled loops of `ngrams` over groups of sentences: different n-grams, and each sentence against the others."""

# pyright: reportArgumentType=false
from __future__ import annotations

import numba
import numpy as np

from bntools.kernels.ngrams.loops import intern, scratch, shift_for


@numba.njit(cache=True, nogil=True)
def distinct_rows(ids, start, length, first, last, distinct):
    """distinct [B, N] = different n-grams in sentences first[b] to last[b] - 1 together."""
    room = 0
    for b in range(len(first)):
        room = max(room, length[first[b] : last[b]].sum())
    mine = scratch(room)
    alive_of = np.zeros(max((last - first).max(), 1), np.int64)
    for b in range(len(first)):
        starts, lengths = start[first[b] : last[b]], length[first[b] : last[b]]
        distinct[b] = 0
        for n in range(1, distinct.shape[1] + 1):
            alive = group_keys(n, ids, starts, lengths, mine, alive_of)
            name = mine.token if n == 1 else mine.gram
            distinct[b, n - 1] = intern(mine.key, alive, shift_for(alive), mine.slots, mine.owner, name)
            if n == 1:
                mine.gram[:alive] = mine.token[:alive]


@numba.njit(cache=True, nogil=True)
def group_keys(n, ids, starts, lengths, mine, alive_of):
    """Keys of the live n-grams of several sentences, one sentence after another. Returns how many.

    live holds positions within a sentence; alive_of[s] says how many belong to sentence s.
    """
    total, offset, before = 0, 0, 0
    for s in range(len(starts)):
        if n == 1:
            for i in range(lengths[s]):
                mine.live[total + i], mine.key[total + i] = i, ids[starts[s] + i]
            alive_of[s] = lengths[s]
        else:
            was, kept = alive_of[s], 0
            for a in range(before, before + was):
                i = mine.live[a]
                if i + n <= lengths[s]:
                    mine.live[total + kept] = i
                    mine.key[total + kept] = (np.int64(mine.gram[a]) << 32) | mine.token[offset + i + n - 1]
                    kept += 1
            before += was
            alive_of[s] = kept
        total += alive_of[s]
        offset += lengths[s]
    return total


@numba.njit(cache=True, nogil=True)
def others_limits(alive_of, mine, who):
    """Per n-gram its highest count in one sentence (limit), by whom, and the next sentence's highest (left)."""
    at = 0
    for s in range(len(alive_of)):
        for a in range(at, at + alive_of[s]):
            mine.times[mine.gram[a]] += 1
        for a in range(at, at + alive_of[s]):
            g = mine.gram[a]
            count, mine.times[g] = mine.times[g], 0
            if count > mine.limit[g]:
                mine.left[g], mine.limit[g], who[g] = mine.limit[g], count, s
            elif count > mine.left[g]:
                mine.left[g] = count
        at += alive_of[s]


@numba.njit(cache=True, nogil=True)
def others_claim(alive_of, mine, who, correct):
    """Match each sentence against the limits of all others; drop n-grams that only one sentence has.

    correct [S] matches; compacts live and gram; `times` counts what a sentence has used of each n-gram.
    """
    at, total = 0, 0
    for s in range(len(alive_of)):
        kept = 0
        for a in range(at, at + alive_of[s]):
            g = mine.gram[a]
            mine.times[g] += 1
            correct[s] += mine.times[g] <= (mine.left[g] if who[g] == s else mine.limit[g])
        for a in range(at, at + alive_of[s]):
            g = mine.gram[a]
            mine.times[g] = 0
            mine.live[total + kept], mine.gram[total + kept] = mine.live[a], g
            kept += mine.left[g] > 0
        at += alive_of[s]
        alive_of[s] = kept
        total += kept


@numba.njit(cache=True, nogil=True)
def others_rows(ids, start, length, first, last, correct):
    """correct [sentences, N] = clipped matches of each sentence with all others of its group, in O(total).

    Groups are sentences first[b] to last[b] - 1. Every n-gram keeps its two highest counts: what the others
    have is the second for the sentence that holds the first, and the first for the rest.
    """
    room, most = 0, 0
    for b in range(len(first)):
        room = max(room, length[first[b] : last[b]].sum())
        most = max(most, last[b] - first[b])
    mine, who, alive_of = scratch(room), np.empty(room + 1, np.int32), np.zeros(max(most, 1), np.int64)
    for b in range(len(first)):
        starts, lengths = start[first[b] : last[b]], length[first[b] : last[b]]
        correct[first[b] : last[b]] = 0
        counts = alive_of[: len(starts)]
        for n in range(1, correct.shape[1] + 1):
            alive = group_keys(n, ids, starts, lengths, mine, counts)
            name = mine.token if n == 1 else mine.gram
            distinct = intern(mine.key, alive, shift_for(alive), mine.slots, mine.owner, name)
            if n == 1:
                mine.gram[:alive] = mine.token[:alive]
            mine.limit[: distinct + 1], mine.left[: distinct + 1], who[: distinct + 1] = 0, 0, -1
            others_limits(counts, mine, who)
            others_claim(counts, mine, who, correct[first[b] : last[b], n - 1])
