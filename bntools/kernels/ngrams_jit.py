"""Compiled loops of `ngrams`: n-grams are named by exact hash tables, order on order, dead ones dropped.

An n-gram is the pair (name of its first n - 1 ids, name of its last id), so a key is always one 64-bit word and
names are exact. A position whose n-gram has no partner on the other side has none at any higher order.
"""

# pyright: reportArgumentType=false
from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

GOLDEN = -7046029254386353131
"""2^64 / golden ratio as a signed word: multiplicative hashing spreads runs of ids (Knuth, vol. 3, 6.4)."""


class Scratch(NamedTuple):
    """Room for the positions of one side; `slots` is the hash table, `owner` the key of each name."""

    live: NDArray[np.int32]
    gram: NDArray[np.int32]
    token: NDArray[np.int32]
    times: NDArray[np.int32]
    limit: NDArray[np.int32]
    left: NDArray[np.int32]
    key: NDArray[np.int64]
    owner: NDArray[np.int64]
    slots: NDArray[np.int32]


@numba.njit(cache=True, nogil=True)
def scratch(count):
    """Room for `count` positions: 56 to 72 bytes each."""
    small = np.zeros((6, count), np.int32)
    large = np.empty((2, count), np.int64)
    slots = np.empty(1 << (64 - shift_for(count)), np.int32)
    return Scratch(small[0], small[1], small[2], small[3], small[4], small[5], large[0], large[1], slots)


@numba.njit(cache=True, nogil=True, inline="always")
def shift_for(count):
    """Right shift that leaves a slot of a table at least four times `count` wide."""
    bits = 4
    while (1 << bits) < 4 * count:
        bits += 1
    return 64 - bits


@numba.njit(cache=True, nogil=True)
def intern(key, count, shift, slots, owner, name):
    """Name [count] of each key, numbered from 0 in order of appearance; returns how many there are."""
    mask = (1 << (64 - shift)) - 1
    slots[: mask + 1] = -1
    distinct = 0
    for i in range(count):
        slot = ((key[i] * GOLDEN) >> shift) & mask
        while slots[slot] >= 0 and owner[slots[slot]] != key[i]:
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = distinct
            owner[distinct] = key[i]
            distinct += 1
        name[i] = slots[slot]
    return distinct


@numba.njit(cache=True, nogil=True, inline="always")
def lookup(key, shift, slots, owner):
    """Name of a key that `intern` saw, else -1."""
    mask = (1 << (64 - shift)) - 1
    slot = ((key * GOLDEN) >> shift) & mask
    while slots[slot] >= 0:
        if owner[slots[slot]] == key:
            return slots[slot]
        slot = (slot + 1) & mask
    return -1


@numba.njit(cache=True, nogil=True)
def extend(n, length, live, alive, gram, token, key):
    """Keep the live positions that an n-gram fits and whose last id is known; their keys. Returns how many."""
    kept = 0
    for a in range(alive):
        i = live[a]
        if i + n > length:
            break
        last = token[i + n - 1]
        live[kept] = i
        key[kept] = (np.int64(gram[a]) << 32) | last
        kept += last >= 0
    return kept


@numba.njit(cache=True, nogil=True)
def find(key, live, alive, shift, slots, owner, gram):
    """Names of the live positions' keys, those without one dropped. Returns how many are left."""
    kept = 0
    for a in range(alive):
        name = lookup(key[a], shift, slots, owner)
        live[kept], gram[kept] = live[a], name
        kept += name >= 0
    return kept


@numba.njit(cache=True, nogil=True)
def raise_limits(gram, alive, times, limit):
    """limit = max(limit, how often each n-gram stands among the live); `times` is zero before and after."""
    for a in range(alive):
        times[gram[a]] += 1
        limit[gram[a]] = max(limit[gram[a]], times[gram[a]])
    for a in range(alive):
        times[gram[a]] = 0


@numba.njit(cache=True, nogil=True)
def claim(n, live, alive, gram, limit, left, hits):
    """Match the live positions against `limit`, in order; drop those with none. Returns (matched, kept).

    hits [length, orders], unless empty, gets 1 where the n-gram that ends there is matched.
    """
    matched, kept = 0, 0
    for a in range(alive):
        g = gram[a]
        hit = left[g] > 0
        left[g] -= hit
        matched += hit
        if len(hits):
            hits[live[a] + n - 1, n - 1] = hit
        live[kept], gram[kept] = live[a], g
        kept += limit[g] > 0
    return matched, kept


@numba.njit(cache=True, nogil=True)
def clip_first(hyp, refs, starts, lengths, mine, theirs, alive_of):
    """Order 1: name the ids of a row; limits are how often each stands in one reference. Returns positions kept.

    mine and theirs: rows live, gram, token (and for mine times, limit, left) of scratch; theirs holds one
    reference after another, alive_of[r] positions of each kept.
    """
    shift = shift_for(len(hyp))
    slots, owner = mine.slots, mine.owner
    mine.limit[: intern(hyp, len(hyp), shift, slots, owner, mine.token)] = 0
    for i in range(len(hyp)):
        mine.live[i], mine.gram[i] = i, mine.token[i]
    offset = 0
    for r in range(len(starts)):
        kept = 0
        for j in range(lengths[r]):
            name = lookup(refs[starts[r] + j], shift, slots, owner)
            theirs.token[offset + j] = name
            theirs.live[offset + kept], theirs.gram[offset + kept] = j, name
            kept += name >= 0
        alive_of[r] = kept
        raise_limits(theirs.gram[offset:], kept, mine.times, mine.limit)
        offset += max(lengths[r], 0)
    return len(hyp)


@numba.njit(cache=True, nogil=True)
def clip_next(n, length, lengths, alive, mine, theirs, alive_of):
    """Order n > 1 of `clip_first`, from what order n - 1 left alive."""
    alive = extend(n, length, mine.live, alive, mine.gram, mine.token, mine.key)
    shift = shift_for(alive)
    mine.limit[: intern(mine.key, alive, shift, mine.slots, mine.owner, mine.gram)] = 0
    offset = 0
    for r in range(len(lengths)):
        live, gram, token = theirs.live[offset:], theirs.gram[offset:], theirs.token[offset:]
        kept = extend(n, lengths[r], live, alive_of[r], gram, token, theirs.key)
        alive_of[r] = find(theirs.key, live, kept, shift, mine.slots, mine.owner, gram)
        raise_limits(gram, alive_of[r], mine.times, mine.limit)
        offset += max(lengths[r], 0)
    return alive


@numba.njit(cache=True, nogil=True)
def clip_row(hyp, refs, starts, lengths, mine, theirs, alive_of, correct, hits):
    """correct [N] = clipped matches of one row."""
    correct[:] = 0
    alive = len(hyp)
    for n in range(1, len(correct) + 1):
        if n == 1:
            alive = clip_first(hyp, refs, starts, lengths, mine, theirs, alive_of)
        else:
            alive = clip_next(n, len(hyp), lengths, alive, mine, theirs, alive_of)
        mine.left[:alive] = mine.limit[:alive]
        if n == 1:
            for i in range(len(hyp)):
                if mine.limit[mine.token[i]] == 0:
                    mine.token[i] = -1
        correct[n - 1], alive = claim(n, mine.live, alive, mine.gram, mine.limit, mine.left, hits)
        if alive == 0:
            return


@numba.njit(cache=True, nogil=True)
def clip_rows(hyp, hyp_start, hyp_len, refs, ref_start, ref_len, first, last, correct, hits, hit_start):
    """correct [B, N] = clipped matches of each row with its references first[b] to last[b] - 1.

    hits: empty, or [positions, N] zeros, in which row b begins at hit_start[b].
    """
    longest, room, count = 0, 0, 0
    for b in range(len(hyp_len)):
        total = 0
        for r in range(first[b], last[b]):
            total += max(ref_len[r], 0)
        longest, room, count = max(longest, hyp_len[b]), max(room, total), max(count, last[b] - first[b])
    mine, theirs, alive_of = scratch(longest), scratch(room), np.zeros(count, np.int64)
    for b in range(len(hyp_len)):
        row = hyp[hyp_start[b] : hyp_start[b] + hyp_len[b]]
        starts, lengths = ref_start[first[b] : last[b]], ref_len[first[b] : last[b]]
        ends = hits if len(hits) == 0 else hits[hit_start[b] : hit_start[b] + hyp_len[b]]
        clip_row(row, refs, starts, lengths, mine, theirs, alive_of, correct[b], ends)


@numba.njit(cache=True, nogil=True)
def cut(ids, start, length, has_eos, eos, has_pad, pad):
    """Shorten each sentence, in place of `length`, to its first eos, then by the pads at its end."""
    for k in range(len(length)):
        if has_eos:
            for i in range(length[k]):
                if ids[start[k] + i] == eos:
                    length[k] = i
                    break
        if has_pad:
            while length[k] > 0 and ids[start[k] + length[k] - 1] == pad:
                length[k] -= 1


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
    mine, who, alive_of = scratch(room), np.empty(room, np.int32), np.zeros(max(most, 1), np.int64)
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
            mine.limit[:distinct], mine.left[:distinct], who[:distinct] = 0, 0, -1
            others_limits(counts, mine, who)
            others_claim(counts, mine, who, correct[first[b] : last[b], n - 1])
