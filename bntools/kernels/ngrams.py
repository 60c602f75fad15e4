"""Clipped n-gram matches of token ids: sufficient statistics of BLEU, on the device of the ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.integer]

CHUNK = 1 << 15
"""Tokens a thread works on at a time; a longer row is one chunk. Fewer tokens than two chunks: one thread."""
SHORT = 2048
"""Longest sentence that a GPU compares pair by pair; beyond, sorting costs less."""


class Sentences(NamedTuple):
    """Sentence k is ids[start[k] : start[k] + length[k]]; -1: there is none. All on one device.

    width: an upper bound of the lengths, known without asking the device.
    """

    ids: Tensor
    start: Tensor
    length: Tensor
    width: int


def ngram_stats(
    hyp: Sentences,
    refs: Sentences,
    first: Tensor,
    last: Tensor,
    max_n: int = 4,
    most: int | None = None,
    threads: int | None = None,
) -> Tensor:
    """Statistics of BLEU [B, 2 + 2 max_n] int32: hyp_len, closest ref_len, correct 1..n, total 1..n.

    Row b is hypothesis b and references first[b] to last[b] - 1, at least one of them there. Of two closest
    references the shorter counts (Papineni et al. 2002 leave it open). On a CPU: exact hashing, 72 bytes a
    token of the longest rows a thread. On a GPU no value is read back by the host: one launch up to SHORT
    (`ngrams_triton`), sorts beyond (`ngrams_sorted`), which read `most`, the most references a row has, back from
    the device if it is not given. `threads` defaults to torch's.
    """
    if hyp.ids.device.type != "cpu":
        return _on_device(hyp, refs, first, last, max_n, most)
    stats = torch.empty(len(hyp.length), 2 + 2 * max_n, dtype=torch.int32)
    stats[:, 0], stats[:, 1] = hyp.length, closest_length(hyp.length, refs.length, first, last)
    stats[:, 2 + max_n :] = (stats[:, :1] - torch.arange(max_n, dtype=torch.int32)).clamp(min=0)
    correct = stats.numpy()[:, 2 : 2 + max_n]
    _clip(hyp, refs, first, last, correct, np.zeros((0, max_n), np.uint8), threads)
    return stats


def prefix_hits(
    hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int = 4
) -> tuple[Tensor, Tensor]:
    """Matches by where they end: [positions, max_n] uint8 and where each hypothesis begins in it [B]. CPU.

    The first n-grams of a kind are the ones that match, so running sums are the matches of every prefix.
    """
    begin = hyp.length.cumsum(0) - hyp.length
    hits = np.zeros((int(hyp.length.sum()), max_n), np.uint8)
    _clip(hyp, refs, first, last, np.empty((len(begin), max_n), np.int32), hits, 1)
    return torch.from_numpy(hits), begin


def others_stats(hyp: Sentences, group: int, max_n: int = 4, threads: int | None = None) -> Tensor:
    """Statistics of each hypothesis against the other `group - 1` of its group, in O(tokens). CPU.

    Hypotheses of a group follow each other; their count is a multiple of group >= 2.
    """
    from bntools.kernels import ngrams_jit

    stats = torch.empty(len(hyp.length), 2 + 2 * max_n, dtype=torch.int32)
    stats[:, 0], stats[:, 1] = hyp.length, _closest_other(hyp.length.view(-1, group)).reshape(-1)
    stats[:, 2 + max_n :] = (stats[:, :1] - torch.arange(max_n, dtype=torch.int32)).clamp(min=0)
    ids, start, length = _arrays(hyp)
    correct, first = stats.numpy()[:, 2 : 2 + max_n], np.arange(0, len(start), group)

    def work(rows: slice) -> None:
        ngrams_jit.others_rows(ids, start, length, first[rows], first[rows] + group, correct)

    _over_rows(work, length.reshape(-1, group).sum(1), threads)
    return stats


def distinct_ngrams(
    hyp: Sentences, first: Tensor, last: Tensor, max_n: int, threads: int | None = None
) -> Tensor:
    """Different n-grams of orders 1 to max_n among hypotheses first[b] to last[b] - 1 together [B, max_n]. CPU."""
    from bntools.kernels import ngrams_jit

    ids, start, length = _arrays(hyp)
    found = np.zeros((len(first), max_n), np.int32)
    one, two = first.numpy(), last.numpy()

    def work(rows: slice) -> None:
        ngrams_jit.distinct_rows(ids, start, length, one[rows], two[rows], found[rows])

    total = np.concatenate([[0], length.cumsum()])
    _over_rows(work, total[two] - total[one], threads)
    return torch.from_numpy(found)


def cut(sentences: Sentences, eos_id: int | None, pad_id: int | None) -> Sentences:
    """Sentences that end before their first eos_id, then without the pad_id at their end; lengths are copied."""
    if sentences.ids.device.type != "cpu":
        return _cut_on_device(sentences, eos_id, pad_id)
    from bntools.kernels import ngrams_jit

    ids, start, length = _arrays(sentences)
    length = length.copy()
    ngrams_jit.cut(ids, start, length, eos_id is not None, eos_id or 0, pad_id is not None, pad_id or 0)
    return sentences._replace(length=torch.from_numpy(length))


def _cut_on_device(s: Sentences, eos_id: int | None, pad_id: int | None) -> Sentences:
    at = torch.arange(s.width, device=s.ids.device)
    ids = torch.nn.functional.pad(s.ids, (0, 1))
    ids = ids[torch.where(at < s.length[:, None], s.start[:, None] + at, 0)]
    length = s.length
    if eos_id is not None and s.width:
        ends = torch.where((ids == eos_id) & (at < length[:, None]), at, s.width).amin(1)
        length = torch.minimum(length, ends)
    if pad_id is not None and s.width:
        kept = torch.where((ids != pad_id) & (at < length[:, None]), at + 1, 0).amax(1)
        length = torch.where(length < 0, length, kept)
    return s._replace(length=length)


def ngram_stats_reference(
    hyps: Sequence[Sequence[int]], refs: Sequence[Sequence[Sequence[int]]], max_n: int = 4
) -> NDArray[np.int32]:
    """The specification of `ngram_stats`, on lists."""
    stats = []
    for candidate, others in zip(hyps, refs, strict=True):
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


def _counts(tokens: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def closest_length(hyp_len: Tensor, ref_len: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Length [B] of the reference nearest to each hypothesis; the shorter of two, -1 skipped. CPU."""
    count = last - first
    if len(count) == 0 or int(count.max()) == 1:
        return ref_len[first]
    row = torch.repeat_interleave(torch.arange(len(count)), count)
    within = torch.arange(len(row)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    lengths = ref_len[first[row] + within]
    apart = (lengths - hyp_len[row]).abs() * 2 + (lengths > hyp_len[row])
    apart = torch.where(lengths < 0, torch.iinfo(torch.int64).max, apart)
    best = torch.full_like(hyp_len, torch.iinfo(torch.int64).max).scatter_reduce(0, row, apart, "amin")
    return hyp_len + torch.where(best % 2 == 1, 1, -1) * (best // 2)


def _closest_other(lengths: Tensor) -> Tensor:
    """[groups, G]: the length nearest to each among the others of its row; the shorter of two."""
    ordered, place = lengths.sort(1)
    far = torch.iinfo(torch.int64).max // 4
    below = torch.nn.functional.pad(ordered[:, :-1], (1, 0), value=-far)
    above = torch.nn.functional.pad(ordered[:, 1:], (0, 1), value=far)
    nearest = torch.where(ordered - below <= above - ordered, below, above)
    return torch.empty_like(lengths).scatter(1, place, nearest)


def _arrays(s: Sentences) -> tuple[Any, Any, Any]:
    return s.ids.numpy(), s.start.numpy(), s.length.numpy()


def _clip(
    hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, correct: Any, hits: Any, threads: int | None
) -> None:
    from bntools.kernels import ngrams_jit

    (ids, start, length), (other, other_start, other_len) = _arrays(hyp), _arrays(refs)
    one, two = first.numpy(), last.numpy()
    begin = length.cumsum() - length
    total = np.concatenate([[0], np.maximum(other_len, 0).cumsum()])

    def work(rows: slice) -> None:
        mine, range_of = (start[rows], length[rows]), (one[rows], two[rows])
        ngrams_jit.clip_rows(
            ids, *mine, other, other_start, other_len, *range_of, correct[rows], hits, begin[rows]
        )

    _over_rows(work, length + total[two] - total[one], threads)


def _over_rows(work: Callable[[slice], None], tokens: Ints, threads: int | None) -> None:
    """Call `work` on slices of rows of about CHUNK tokens, from several threads where that pays."""
    upto = tokens.cumsum()
    workers = threads or torch.get_num_threads()
    if not len(upto):
        return None
    if workers < 2 or upto[-1] < 2 * CHUNK:
        return work(slice(0, len(upto)))
    marks = np.searchsorted(upto, np.arange(CHUNK, upto[-1] + CHUNK, CHUNK)) + 1
    bounds = [0, *np.unique(marks.clip(max=len(upto))).tolist()]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, map(slice, bounds[:-1], bounds[1:])))
    return None


def _on_device(
    hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int, most: int | None
) -> Tensor:
    if max(hyp.width, refs.width) <= SHORT and hyp.ids.device.type == "cuda":
        from bntools.kernels.ngrams_triton import ngram_stats as compare

        return compare(hyp, refs, first, last, max_n)
    from bntools.kernels.ngrams_sorted import ngram_stats as sort

    most = int((last - first).max()) if most is None else most
    return sort(hyp, refs, first, last, max_n, most)
