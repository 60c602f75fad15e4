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


SHORT = 1 << 14
"""Up to so many positions a wide table is cheap, and shorter searches are worth it."""


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
    """Room for `count` positions: 56 to 72 bytes each, up to SHORT 72 to 104."""
    small = np.zeros((6, count + 1), np.int32)
    large = np.empty((2, count + 2), np.int64)
    slots = np.empty(1 << (64 - shift_for(count)), np.int32)
    return Scratch(small[0], small[1], small[2], small[3], small[4], small[5], large[0], large[1], slots)


@numba.njit(cache=True, nogil=True, inline="always")
def shift_for(count):
    """Right shift that leaves a slot of a table: at least 8 a position, of long rows 4, which take most memory."""
    bits = 4
    while (1 << bits) < (8 if count <= SHORT else 4) * count:
        bits += 1
    return 64 - bits


@numba.njit(cache=True, nogil=True)
def intern(key, count, shift, slots, owner, name):
    """Name [count] of each key, numbered from 1 in order of appearance; returns how many there are.

    owner [count + 2]. An empty slot holds 0, and owner[0] is made equal to the key in question: so the search has
    one branch, and whether a key is new has none. In texts neither can be predicted, and a wrong guess costs as
    much as the rest.
    """
    mask = (1 << (64 - shift)) - 1
    slots[: mask + 1] = 0
    distinct = 0
    for i in range(count):
        own = key[i]
        owner[0], owner[distinct + 1] = own, own
        slot = ((own * GOLDEN) >> shift) & mask
        while owner[slots[slot]] != own:
            slot = (slot + 1) & mask
        number = slots[slot]
        fresh = np.int32(number == 0)
        distinct += fresh
        number += np.int32(distinct) * fresh
        slots[slot] = number
        name[i] = number
    return distinct


@numba.njit(cache=True, nogil=True, inline="always")
def lookup(key, shift, slots, owner):
    """Name of a key that `intern` saw, else 0."""
    mask = (1 << (64 - shift)) - 1
    owner[0] = key
    slot = ((key * GOLDEN) >> shift) & mask
    while owner[slots[slot]] != key:
        slot = (slot + 1) & mask
    return slots[slot]


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
        kept += last != 0
    return kept


@numba.njit(cache=True, nogil=True)
def find(key, live, alive, shift, slots, owner, gram):
    """Names of the live positions' keys, those without one dropped. Returns how many are left."""
    kept = 0
    for a in range(alive):
        name = lookup(key[a], shift, slots, owner)
        live[kept], gram[kept] = live[a], name
        kept += name != 0
    return kept


@numba.njit(cache=True, nogil=True)
def raise_limits(r, gram, alive, times, limit):
    """limit = max(limit, how often each n-gram stands among the live of reference r), limit being 0 before the first.

    `times` is zero before and after.
    """
    if r == 0:
        for a in range(alive):
            limit[gram[a]] += 1
        return
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
    """Order 1: name the ids of a row; limits are how often each stands in one reference. Returns how many names.

    mine and theirs: rows live, gram, token (and for mine times, limit, left) of scratch; theirs holds one
    reference after another, alive_of[r] positions of each kept.
    """
    shift = shift_for(len(hyp))
    slots, owner = mine.slots, mine.owner
    names = intern(hyp, len(hyp), shift, slots, owner, mine.gram)
    mine.limit[: names + 1] = 0
    offset = 0
    for r in range(len(starts)):
        kept = 0
        for j in range(lengths[r]):
            name = lookup(refs[starts[r] + j], shift, slots, owner)
            theirs.token[offset + j] = name
            theirs.live[offset + kept], theirs.gram[offset + kept] = j, name
            kept += name != 0
        alive_of[r] = kept
        raise_limits(r, theirs.gram[offset:], kept, mine.times, mine.limit)
        offset += max(lengths[r], 0)
    for i in range(len(hyp)):
        mine.live[i] = i
        mine.token[i] = mine.gram[i] * (mine.limit[mine.gram[i]] != 0)
    return names


@numba.njit(cache=True, nogil=True)
def clip_next(n, length, lengths, alive, mine, theirs, alive_of):
    """Order n > 1 of `clip_first`, from what order n - 1 left alive. Returns positions kept and how many names."""
    alive = extend(n, length, mine.live, alive, mine.gram, mine.token, mine.key)
    shift = shift_for(alive)
    names = intern(mine.key, alive, shift, mine.slots, mine.owner, mine.gram)
    mine.limit[: names + 1] = 0
    offset = 0
    for r in range(len(lengths)):
        live, gram, token = theirs.live[offset:], theirs.gram[offset:], theirs.token[offset:]
        kept = extend(n, lengths[r], live, alive_of[r], gram, token, theirs.key)
        alive_of[r] = find(theirs.key, live, kept, shift, mine.slots, mine.owner, gram)
        raise_limits(r, gram, alive_of[r], mine.times, mine.limit)
        offset += max(lengths[r], 0)
    return alive, names


@numba.njit(cache=True, nogil=True)
def clip_row(hyp, refs, starts, lengths, mine, theirs, alive_of, correct, hits):
    """correct [N] = clipped matches of one row."""
    correct[:] = 0
    alive = len(hyp)
    for n in range(1, len(correct) + 1):
        if n == 1:
            names = clip_first(hyp, refs, starts, lengths, mine, theirs, alive_of)
        else:
            alive, names = clip_next(n, len(hyp), lengths, alive, mine, theirs, alive_of)
        mine.left[: names + 1] = mine.limit[: names + 1]
        correct[n - 1], alive = claim(n, mine.live, alive, mine.gram, mine.limit, mine.left, hits)
        if alive == 0:
            return


@numba.njit(cache=True, nogil=True)
def closest(length, others, first, last):
    """Of others[first:last] the nearest to `length`, the shorter of two; -1, which is none, if there is no other."""
    nearest, least = -1, np.iinfo(np.int64).max
    for r in range(first, last):
        apart = 2 * abs(others[r] - length) + (others[r] > length)
        if others[r] >= 0 and apart < least:
            nearest, least = others[r], apart
    return nearest


@numba.njit(cache=True, nogil=True)
def out_of_range(length, most, least):
    """The first sentence whose length is not within least and most[k], else -1."""
    for k in range(len(length)):
        if length[k] < least or length[k] > most[k]:
            return k
    return -1


@numba.njit(cache=True, nogil=True)
def without_reference(ref_len, first, last):
    """The first row all of whose references are missing (-1), else -1; B, if references are not there at all."""
    for b in range(len(first)):
        if not 0 <= first[b] <= last[b] <= len(ref_len):
            return len(first)
        there = 0
        for r in range(first[b], last[b]):
            there += ref_len[r] >= 0
        if there == 0:
            return b
    return -1


@numba.njit(cache=True, nogil=True)
def tokens_of(b, hyp_len, ref_len, first, last):
    """Ids in the references of row b, and in the whole row."""
    theirs = 0
    for r in range(first[b], last[b]):
        theirs += max(ref_len[r], 0)
    return theirs, theirs + hyp_len[b]


@numba.njit(cache=True, nogil=True)
def bounds(hyp_len, ref_len, first, last, size):
    """Where to divide rows into parts of at least `size` ids, but for the last: [0, ..., B]."""
    edges, held = [0], 0
    for b in range(len(hyp_len)):
        held += tokens_of(b, hyp_len, ref_len, first, last)[1]
        if held >= size or b == len(hyp_len) - 1:
            edges.append(b + 1)
            held = 0
    return np.array(edges)


@numba.njit(cache=True, nogil=True)
def pair_rows(
    begin, end, hyp, hyp_start, hyp_len, refs, ref_start, ref_len, first, last, stats, hits, hit_start
):
    """stats [B, 2 + 2 N] of rows begin to end - 1, each with its references first[b] to last[b] - 1.

    hits: empty, or [positions, N] zeros, in which row b begins at hit_start[b].
    """
    longest, room, count, orders = 0, 0, 0, stats.shape[1] // 2 - 1
    for b in range(begin, end):
        total, _ = tokens_of(b, hyp_len, ref_len, first, last)
        longest, room, count = max(longest, hyp_len[b]), max(room, total), max(count, last[b] - first[b])
    mine, theirs, alive_of = scratch(longest), scratch(room), np.zeros(count, np.int64)
    for b in range(begin, end):
        row = hyp[hyp_start[b] : hyp_start[b] + hyp_len[b]]
        starts, lengths = ref_start[first[b] : last[b]], ref_len[first[b] : last[b]]
        ends = hits if len(hits) == 0 else hits[hit_start[b] : hit_start[b] + hyp_len[b]]
        out = stats[b]
        out[0], out[1] = hyp_len[b], closest(hyp_len[b], ref_len, first[b], last[b])
        for n in range(orders):
            out[2 + orders + n] = max(hyp_len[b] - n, 0)
        clip_row(row, refs, starts, lengths, mine, theirs, alive_of, out[2 : 2 + orders], ends)


@numba.njit(cache=True, nogil=True)
def closest_rows(length, ref_len, first, last, nearest):
    """found [B]: `closest` of each row."""
    for b in range(len(length)):
        nearest[b] = closest(length[b], ref_len, first[b], last[b])


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
