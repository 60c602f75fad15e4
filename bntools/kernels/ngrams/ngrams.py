"""Clipped n-gram matches of token ids: sufficient statistics of BLEU, on the device of the ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.ngrams import cpu as ngrams_cpu
from bntools.kernels.ngrams.cpu import FlatSentences

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
    references the shorter counts (Papineni et al. 2002 leave it open). On a CPU: exact hashing
    (`ngrams_cpu`). On a GPU no value is read back by the host: one launch up to SHORT
    (`ngrams_triton`), sorts beyond (`ngrams_sorted`), which read `most`, the most references a row has, back from
    the device if it is not given. `threads` defaults to torch's.
    """
    if hyp.ids.device.type != "cpu":
        return _on_device(hyp, refs, first, last, max_n, most)
    rows = first.numpy(), last.numpy()
    return torch.from_numpy(ngrams_cpu.pair_stats(flat(hyp), flat(refs), *rows, max_n, _threads(threads)))


def prefix_hits(
    hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int = 4
) -> tuple[Tensor, Tensor]:
    """Matches by where they end: [positions, max_n] uint8 and where each hypothesis begins in it [B]. CPU.

    The first n-grams of a kind are the ones that match, so running sums are the matches of every prefix.
    """
    hits, begin = ngrams_cpu.prefix_hits(flat(hyp), flat(refs), first.numpy(), last.numpy(), max_n)
    return torch.from_numpy(hits), torch.from_numpy(begin)


def others_stats(hyp: Sentences, group: int, max_n: int = 4, threads: int | None = None) -> Tensor:
    """Statistics of each hypothesis against the other `group - 1` of its group, in O(tokens). CPU.

    Hypotheses of a group follow each other; their count is a multiple of group >= 2.
    """
    return torch.from_numpy(ngrams_cpu.others_stats(flat(hyp), group, max_n, _threads(threads)))


def distinct_ngrams(
    hyp: Sentences, first: Tensor, last: Tensor, max_n: int, threads: int | None = None
) -> Tensor:
    """Different n-grams of orders 1 to max_n among hypotheses first[b] to last[b] - 1 together [B, max_n]. CPU."""
    rows = first.numpy(), last.numpy()
    return torch.from_numpy(ngrams_cpu.distinct_ngrams(flat(hyp), *rows, max_n, _threads(threads)))


def cut(sentences: Sentences, eos_id: int | None, pad_id: int | None) -> Sentences:
    """Sentences that end before their first eos_id, then without the pad_id at their end; lengths are copied."""
    if sentences.ids.device.type != "cpu":
        return _cut_on_device(sentences, eos_id, pad_id)
    length = ngrams_cpu.cut(flat(sentences), eos_id, pad_id).length
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
    lengths = (x.numpy() for x in (hyp_len, ref_len, first, last))
    return torch.from_numpy(ngrams_cpu.closest_length(*lengths))


def flat(s: Sentences) -> FlatSentences:
    """Sentences on the CPU as numpy sees them."""
    return FlatSentences(s.ids.numpy(), s.start.numpy(), s.length.numpy())


def _threads(given: int | None) -> int:
    return given or torch.get_num_threads()


def _on_device(
    hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int, most: int | None
) -> Tensor:
    if max(hyp.width, refs.width) <= SHORT and hyp.ids.device.type == "cuda":
        from bntools.kernels.ngrams.gpu import ngram_stats as compare

        return compare(hyp, refs, first, last, max_n)
    from bntools.kernels.ngrams.sorted import ngram_stats as sort

    most = int((last - first).max()) if most is None else most
    return sort(hyp, refs, first, last, max_n, most)
