"""Relatives of BLEU from the same statistics: GLEU, chrF, ROUGE-N and ROUGE-L, distinct-n."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import usage
from bntools.kernels.ngrams import ngrams
from bntools.tools.bleu_gpu.batch import Ids, Side, sentences
from bntools.tools.bleu_gpu.stats import _batch, _pairs, reference_stats

CHRF_ORDER = 6
CHRF_BETA = 2.0
"""chrF's n-gram orders and weight of recall (Popovic 2015, as sacrebleu has them)."""


def gleu(hyp: Ids, refs: Ids, max_n: int = 4, **given: Any) -> Tensor:
    """Sentence GLEU [B] of 1- to max_n-grams: the lower of precision and recall (Wu et al. 2016), as NLTK's.

    Options as in `bleu_stats`. Of several references the best counts.
    """
    stats, row = reference_stats(hyp, refs, max_n, **given)
    correct, total = stats[:, 2 : 2 + max_n].sum(1), stats[:, 2 + max_n :].sum(1)
    other = _orders_of(stats[:, 1], max_n).sum(1)
    most = torch.maximum(total, other)
    return _best(torch.where(most > 0, correct / most.clamp(min=1).double(), 0.0), row)


def chrf(hyp: Ids, refs: Ids, order: int = CHRF_ORDER, beta: float = CHRF_BETA, **given: Any) -> Tensor:
    """chrF [B] in 0..1 with ids for characters, as sacrebleu's default (effective order); best reference."""
    stats, row = reference_stats(hyp, refs, order, **given)
    correct, total = (x.double() for x in (stats[:, 2 : 2 + order], stats[:, 2 + order :]))
    other = _orders_of(stats[:, 1], order).double()
    there = (total > 0) & (other > 0)
    count = there.sum(1).clamp(min=1)
    precision = torch.where(there, correct / total.clamp(min=1), 0.0).sum(1) / count
    recall = torch.where(there, correct / other.clamp(min=1), 0.0).sum(1) / count
    return _best(_f(precision, recall, beta), row)


def rouge_n(hyp: Ids, refs: Ids, n: int = 2, **given: Any) -> Tensor:
    """ROUGE-N F1 [B] (Lin 2004): clipped matches of n-grams over both counts; best reference."""
    stats, row = reference_stats(hyp, refs, n, **given)
    correct, total = stats[:, 1 + n].double(), stats[:, 1 + 2 * n].double()
    other = _orders_of(stats[:, 1], n)[:, -1].double()
    return _best(_f(correct / total.clamp(min=1), correct / other.clamp(min=1), 1.0), row)


def rouge_l(hyp: Ids, refs: Ids, **given: Any) -> Tensor:
    """ROUGE-L F1 [B] (Lin 2004): longest common subsequence over both lengths; best reference. CPU."""
    from bntools.kernels.ngrams.subsequence import lcs_lengths

    batch = _batch(hyp, refs, given)
    row, column = _pairs(batch)
    own, other = batch.hyp.length[row], batch.refs.length[column]
    places = batch.hyp.start[row], own, batch.refs.start[column], other
    start, length, ref_start, ref_len = (x.numpy() for x in places)
    ids = batch.hyp.ids.numpy(), batch.refs.ids.numpy()
    common = torch.from_numpy(lcs_lengths(ids[0], start, length, ids[1], ref_start, ref_len)).double()
    return _best(_f(common / own.clamp(min=1), common / other.clamp(min=1), 1.0), row)


def distinct(
    samples: Ids, group: int = 1, max_n: int = 4, pad_id: int | None = None, eos_id: int | None = None
) -> Tensor:
    """Distinct-n [B / group, max_n] (Li et al. 2016): different n-grams of each group over all it has; 0 if none."""
    side = sentences(Side("hyp", samples), pad_id, eos_id)
    if group < 1 or len(side.length) % group:
        raise usage(f"{len(side.length)} samples do not divide into groups of {group}", "groups of one size")
    first = torch.arange(0, len(side.length), group)
    different = ngrams.distinct_ngrams(side, first, first + group, max_n)
    total = _orders_of(side.length, max_n).view(-1, group, max_n).sum(1)
    return different / total.clamp(min=1).double()


METRICS: dict[str, Callable[..., Tensor]] = {
    "gleu": gleu,
    "chrf": chrf,
    "rouge-1": partial(rouge_n, n=1),
    "rouge-2": partial(rouge_n, n=2),
    "rouge-l": rouge_l,
}
"""What the command offers beside BLEU: functions of hypotheses and references."""


def _orders_of(length: Tensor, max_n: int) -> Tensor:
    """[..., max_n] n-grams of sentences by order."""
    return (length[..., None] - torch.arange(max_n)).clamp(min=0)


def _f(precision: Tensor, recall: Tensor, beta: float) -> Tensor:
    bottom = beta**2 * precision + recall
    return torch.where(bottom > 0, (1 + beta**2) * precision * recall / bottom, 0.0)


def _best(values: Tensor, row: Tensor) -> Tensor:
    """[B] highest value of each row."""
    rows = int(row[-1]) + 1 if len(row) else 0
    return values.new_zeros(rows).scatter_reduce(0, row, values, "amax")
