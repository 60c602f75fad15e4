"""Clipped n-gram matches of token ids: all orders of a sentence from one sort of packed n-grams."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.integer]

CHUNK = 1 << 15
"""Tokens worked on at a time, so that every pass over them stays in L2; a longer sentence is one chunk."""
TABLE = 1 << 20
"""Widest range of ids numbered through a table (4 MiB a thread); wider ones are sorted."""
HYP_END, REF_END, FIRST = 0, 1, 2
"""Digits: what follows a hypothesis, what follows a reference (they differ: ends never match), first token."""


class _Plan(NamedTuple):
    """How a call packs its n-grams: `step` rows at a time, digits of `bits` bits, ids as they are or numbered."""

    max_n: int
    refs: int
    step: int
    bits: int
    low: int
    how: str
    span: int


def ngram_stats(
    hyp: Ints, hyp_len: Ints, refs: Ints, ref_len: Ints, max_n: int = 4, threads: int | None = None
) -> NDArray[np.int32]:
    """Sufficient statistics of BLEU, [B, 2 + 2 max_n]: hyp_len, closest ref_len, correct 1..n, total 1..n.

    hyp [B, L] and refs [B, R, M] are ids of any integer type, read up to hyp_len [B] and ref_len [B, R]
    (-1: no such reference). Of two closest references the shorter counts (Papineni et al. 2002 leave it open).
    Memory: about 4 MiB a thread beyond the result. `threads` defaults to torch's. Raises ValueError on
    shapes or lengths that do not fit and on a row without a reference.
    """
    hyp, hyp_len, refs, ref_len = (np.asarray(x) for x in (hyp, hyp_len, refs, ref_len))
    _check(hyp, hyp_len, refs, ref_len, max_n)
    stats = np.zeros((len(hyp), 2 + 2 * max_n), np.int32)
    if not len(hyp):
        return stats
    stats[:, 0], stats[:, 1] = hyp_len, closest_length(hyp_len, ref_len)
    stats[:, 2 + max_n :] = np.maximum(stats[:, :1] - np.arange(max_n), 0)
    plan = _plan(hyp, refs, max_n)
    step = plan.step
    starts = range(0, len(hyp), step)
    workers = min(threads or torch.get_num_threads(), len(starts) // 2)

    def work(part: range) -> None:
        table = np.empty(plan.span if plan.how == "table" else 0, np.uint32)
        for start in part:
            rows = slice(start, start + step)
            digits, pattern = _digits(hyp[rows], hyp_len[rows], refs[rows], ref_len[rows], plan, table)
            stats[rows, 2 : 2 + max_n] = _matches(digits, pattern, plan)

    if workers < 2:
        work(starts)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, [starts[i::workers] for i in range(workers)]))
    return stats


def ngram_stats_reference(
    hyp: Ints, hyp_len: Ints, refs: Ints, ref_len: Ints, max_n: int = 4
) -> NDArray[np.int32]:
    """The specification of `ngram_stats`."""
    stats = []
    for sentence, length, references, lengths in zip(hyp, hyp_len, refs, ref_len, strict=True):
        candidate = sentence[:length].tolist()
        others = [r[:n].tolist() for r, n in zip(references, lengths, strict=True) if n >= 0]
        closest = min((len(r) for r in others), key=lambda n: (abs(n - len(candidate)), n))
        correct, total = [], []
        for n in range(1, max_n + 1):
            counts = _counts(candidate, n)
            most: Counter[tuple[int, ...]] = Counter()
            for other in others:
                most |= _counts(other, n)
            correct.append((counts & most).total())
            total.append(counts.total())
        stats.append([len(candidate), closest, *correct, *total])
    return np.array(stats, np.int32).reshape(-1, 2 + 2 * max_n)


def closest_length(hyp_len: Ints, ref_len: Ints) -> Ints:
    """Length [B] of the reference nearest to each hypothesis; the shorter of two, -1 skipped."""
    lengths = ref_len.astype(np.int64)
    apart = np.abs(lengths - hyp_len[:, None])
    order = np.where(lengths < 0, np.iinfo(np.int64).max, apart * 2 + (lengths > hyp_len[:, None]))
    return np.take_along_axis(lengths, order.argmin(1)[:, None], 1)[:, 0]


def _counts(tokens: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _plan(hyp: Ints, refs: Ints, max_n: int) -> _Plan:
    """Ids as they are when their n-grams fit one word; else numbered, in chunks small enough to fit."""
    rows, count = refs.shape[:2]
    width = hyp.shape[1] + 1 + count * (refs.shape[2] + 1)
    parts = [x for x in (hyp, refs) if x.size]
    low = min((int(x.min()) for x in parts), default=0)
    span = max((int(x.max()) for x in parts), default=0) - low + 1
    room = 64 - count.bit_length()
    plain = (span + FIRST - 1).bit_length()
    fit = (1 << room // max_n) - FIRST
    chunk = fit if plain * max_n > room and width <= fit else CHUNK
    step = max(1, min(chunk, CHUNK, rows * width) // width)
    numbered = (step * width + FIRST - 1).bit_length()
    if plain <= numbered or plain * max_n <= room:
        return _Plan(max_n, count, step, plain, low, "plain", span)
    return _Plan(max_n, count, step, numbered, low, "table" if span <= TABLE else "sort", span)


def _digits(
    hyp: Ints, hyp_len: Ints, refs: Ints, ref_len: Ints, plan: _Plan, table: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Digits of a chunk [rows * width + max_n] (rows one after another, zeros last) and the side [width].

    A row is its hypothesis, HYP_END, then each reference with REF_END; sides are 0 and 1..R.
    """
    (rows, length), (_, count, wide) = hyp.shape, refs.shape
    width = length + 1 + count * (wide + 1)
    flat = np.zeros(rows * width + plan.max_n, np.int64)
    grid = flat[: rows * width].reshape(rows, width)
    grid[:, :length] = hyp
    left, right = grid[:, : length + 1], grid[:, length + 1 :].reshape(rows, count, wide + 1)
    right[..., :wide] = refs
    left[:, length], right[..., wide] = plan.low, plan.low
    _number(grid.reshape(-1), plan, table)
    left[:, length], right[..., wide] = HYP_END, REF_END
    if (hyp_len < length).any():
        np.copyto(left, HYP_END, where=np.arange(length + 1) >= hyp_len[:, None])
    if (ref_len < wide).any():
        np.copyto(right, REF_END, where=np.arange(wide + 1) >= ref_len[..., None])
    side = np.repeat(np.arange(count + 1, dtype=np.uint64), [length + 1] + [wide + 1] * count)
    return flat.view(np.uint64), side


def _number(ids: NDArray[np.int64], plan: _Plan, table: NDArray[np.uint32]) -> None:
    """Replace ids by digits from FIRST on, equal for equal ids of this chunk.

    The table holds for each id one of its positions: whichever was written last names all of them.
    """
    if plan.how == "sort":
        ids[:] = np.unique(ids, return_inverse=True)[1]
        ids += FIRST
    elif plan.how == "table":
        ids -= plan.low
        table[ids] = np.arange(FIRST, len(ids) + FIRST, dtype=np.uint32)
        ids[:] = table.take(ids)
    else:
        ids -= plan.low
        ids += FIRST


def _matches(digits: NDArray[np.uint64], side: NDArray[np.uint64], plan: _Plan) -> NDArray[np.int64]:
    """Clipped matches [rows, max_n] of a chunk, as many orders from one sort as fit 64 bits.

    Sorted n-grams are sorted by every prefix too, so equal prefixes of any order stand side by side.
    Orders that do not fit start again from the number of the last prefix.
    """
    size, width = len(digits) - plan.max_n, len(side)
    rows, side_bits = size // width, plan.refs.bit_length()
    correct = np.empty((rows, plan.max_n), np.int64)
    prefix, prefix_bits, done = None, 0, 0
    while done < plan.max_n:
        orders = min(plan.max_n - done, (64 - side_bits - prefix_bits) // plan.bits)
        key = _pack(digits[done:], size, orders, plan.bits)
        if prefix is not None:
            key |= prefix << np.uint64(orders * plan.bits)
        packed = (key << np.uint64(side_bits)).reshape(rows, width)
        packed |= side
        packed.sort(axis=1)
        shifts = [side_bits + plan.bits * (orders - n) for n in range(1, orders + 1)]
        correct[:, done : done + orders] = _clipped(packed, shifts, plan.refs)
        done += orders
        if done < plan.max_n:
            prefix = np.unique(key, return_inverse=True)[1].astype(np.uint64)
            prefix_bits = size.bit_length()
    return correct


def _pack(digits: NDArray[np.uint64], size: int, orders: int, bits: int) -> NDArray[np.uint64]:
    """[size] the `orders` digits from each position on, the first one highest."""
    key = digits[:size].copy()
    for i in range(1, orders):
        key <<= np.uint64(bits)
        key |= digits[i : i + size]
    return key


def _clipped(packed: NDArray[np.uint64], shifts: list[int], refs: int) -> NDArray[np.int64]:
    """[rows, orders] sum over n-grams of min(count in hyp, max over refs of count).

    One running sum counts all sides, a field of a word each; fields may overflow, differences are exact.
    """
    rows, width = packed.shape
    flat = packed.reshape(-1)
    field = width.bit_length()
    fits = 63 // field
    sums = _running(flat, refs, field, fits)
    change = np.empty_like(flat)
    np.bitwise_xor(flat[1:], flat[:-1], out=change[1:])
    change[::width] = np.iinfo(np.uint64).max
    upto = np.zeros((len(shifts), rows + 1), np.int64)
    bounds = np.arange(1, rows + 1) * width
    same = np.zeros(len(flat) + 1, bool)
    for i, shift in enumerate(shifts):
        np.less(change, np.uint64(1 << shift), out=same[:-1])
        edges = np.flatnonzero(same[1:] != same[:-1])
        if not len(edges):
            continue
        starts, ends = edges[::2], edges[1::2] + 1
        counts = [total.take(ends) - total.take(starts) for total in sums]
        each = [(counts[s // fits] >> field * (s % fits)) & ((1 << field) - 1) for s in range(refs + 1)]
        most = each[1]
        for other in each[2:]:
            most = np.maximum(most, other)
        total = np.minimum(each[0], most).cumsum()
        before = starts.searchsorted(bounds)
        upto[i, 1:] = np.where(before, total[before - 1], 0)
    return (upto[:, 1:] - upto[:, :-1]).T


def _running(packed: NDArray[np.uint64], refs: int, field: int, fits: int) -> list[NDArray[np.int64]]:
    """Elements of each side before a place [elements + 1]; side s is field s % fits of word s // fits."""
    sides = (packed & np.uint64((1 << refs.bit_length()) - 1)).view(np.int64)
    sums = []
    for word in range(refs // fits + 1):
        places = [field * (s % fits) if s // fits == word else -1 for s in range(refs + 1)]
        units = np.array([0 if place < 0 else 1 << place for place in places], np.int64)
        total = np.zeros(len(packed) + 1, np.int64)
        np.cumsum(units.take(sides), out=total[1:])
        sums.append(total)
    return sums


def _check(hyp: Ints, hyp_len: Ints, refs: Ints, ref_len: Ints, max_n: int) -> None:
    if max_n < 1:
        raise ValueError(f"max_n must be at least 1, got {max_n}")
    if not all(
        x.dtype.kind in "iu" and np.can_cast(x.dtype, np.int64) for x in (hyp, hyp_len, refs, ref_len)
    ):
        raise ValueError(f"ids and lengths must be integers, got {hyp.dtype}, {refs.dtype}")
    if hyp.ndim != 2 or refs.ndim != 3 or len(hyp) != len(refs):
        raise ValueError(f"need hyp [B, L] and refs [B, R, M], got {hyp.shape} and {refs.shape}")
    if hyp_len.shape != hyp.shape[:1] or ref_len.shape != refs.shape[:2]:
        raise ValueError(f"lengths {hyp_len.shape}, {ref_len.shape} do not fit {hyp.shape}, {refs.shape}")
    if not len(hyp):
        return
    if hyp_len.min() < 0 or hyp_len.max() > hyp.shape[1]:
        raise ValueError(f"hyp_len must be 0 to {hyp.shape[1]}, got {hyp_len.min()} to {hyp_len.max()}")
    if (ref_len > refs.shape[2]).any():
        raise ValueError(f"ref_len must be -1 to {refs.shape[2]}, got {ref_len.max()}")
    bare = np.flatnonzero((ref_len < 0).all(1))
    if len(bare):
        raise ValueError(f"row {bare[0]} has no reference")
