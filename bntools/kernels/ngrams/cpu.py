"""N-gram statistics on a CPU: numpy arrays in, numpy arrays out, rows over threads; torch is not imported."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.ngrams import group_loops
from bntools.kernels.ngrams import loops as ngram_loops

Ids = NDArray[Any]
Places = NDArray[np.int64]

CHUNK = 1 << 15
"""Tokens a thread works on at a time; a longer row is one chunk. Fewer tokens than two chunks: one thread."""
_NO_HITS = np.zeros((0, 1), np.uint8)


class FlatSentences(NamedTuple):
    """Sentence k is ids[start[k] : start[k] + length[k]]; -1: there is none."""

    ids: Ids
    start: Places
    length: Places


def pair_stats(
    hyp: FlatSentences, refs: FlatSentences, first: Places, last: Places, max_n: int, threads: int
) -> NDArray[np.int32]:
    """`ngrams.ngram_stats` [B, 2 + 2 max_n], 72 to 144 bytes a token of the longest rows a thread."""
    stats = np.empty((len(hyp.length), 2 + 2 * max_n), np.int32)

    def work(begin: int, end: int) -> None:
        ngram_loops.pair_rows(begin, end, *hyp, *refs, first, last, stats, _NO_HITS, hyp.start)

    _over_rows(work, hyp.length, refs.length, first, last, threads)
    return stats


def prefix_hits(
    hyp: FlatSentences, refs: FlatSentences, first: Places, last: Places, max_n: int
) -> tuple[NDArray[np.uint8], Places]:
    """`ngrams.prefix_hits`."""
    begin = hyp.length.cumsum() - hyp.length
    hits = np.zeros((int(hyp.length.sum()), max_n), np.uint8)
    stats = np.empty((len(begin), 2 + 2 * max_n), np.int32)
    ngram_loops.pair_rows(0, len(begin), *hyp, *refs, first, last, stats, hits, begin)
    return hits, begin


def closest_length(length: Places, ref_len: Places, first: Places, last: Places) -> Places:
    """Length [B] of the reference nearest to each `length`; the shorter of two, -1 skipped."""
    closest = np.empty(len(length), np.int64)
    ngram_loops.closest_rows(length, ref_len, first, last, closest)
    return closest


def others_stats(hyp: FlatSentences, group: int, max_n: int, threads: int) -> NDArray[np.int32]:
    """`ngrams.others_stats`."""
    stats = np.zeros((len(hyp.length), 2 + 2 * max_n), np.int32)
    stats[:, 0], stats[:, 1] = hyp.length, _closest_other(hyp.length.reshape(-1, group)).ravel()
    stats[:, 2 + max_n :] = np.maximum(hyp.length[:, None] - np.arange(max_n), 0)
    first, correct = np.arange(0, len(hyp.length), group), stats[:, 2 : 2 + max_n]
    last = first + group

    def work(begin: int, end: int) -> None:
        group_loops.others_rows(*hyp, first[begin:end], last[begin:end], correct)

    _over_rows(work, np.zeros_like(first), hyp.length, first, last, threads)
    return stats


def distinct_ngrams(
    hyp: FlatSentences, first: Places, last: Places, max_n: int, threads: int
) -> NDArray[np.int32]:
    """`ngrams.distinct_ngrams`."""
    distinct = np.zeros((len(first), max_n), np.int32)

    def work(begin: int, end: int) -> None:
        group_loops.distinct_rows(*hyp, first[begin:end], last[begin:end], distinct[begin:end])

    _over_rows(work, np.zeros_like(first), hyp.length, first, last, threads)
    return distinct


def cut(sentences: FlatSentences, eos_id: int | None, pad_id: int | None) -> FlatSentences:
    """`ngrams.cut`; lengths are copied."""
    length = sentences.length.copy()
    ends = eos_id is not None, eos_id or 0, pad_id is not None, pad_id or 0
    ngram_loops.cut(sentences.ids, sentences.start, length, *ends)
    return sentences._replace(length=length)


def _closest_other(lengths: Places) -> Places:
    """[groups, G]: the length nearest to each among the others of its row; the shorter of two."""
    place = lengths.argsort(axis=1)
    ordered = np.take_along_axis(lengths, place, 1)
    far = np.full((len(lengths), 1), np.iinfo(np.int64).max // 4)
    below, above = np.hstack([-far, ordered[:, :-1]]), np.hstack([ordered[:, 1:], far])
    nearest = np.where(ordered - below <= above - ordered, below, above)
    closest = np.empty_like(lengths)
    np.put_along_axis(closest, place, nearest, 1)
    return closest


def _over_rows(
    work: Callable[[int, int], None],
    hyp_len: Places,
    ref_len: Places,
    first: Places,
    last: Places,
    threads: int,
) -> None:
    """Call `work` on rows from begin to end - 1, about CHUNK tokens each, from several threads where that pays."""
    rows = len(hyp_len)
    marks = ngram_loops.bounds(hyp_len, ref_len, first, last, CHUNK) if threads > 1 and rows > 1 else None
    if marks is None or len(marks) < 3:
        if rows:
            work(0, rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, marks[:-1].tolist(), marks[1:].tolist()))
