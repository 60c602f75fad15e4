"""BLEU statistics: of pairs, of each reference alone, of every prefix, within groups, all against all."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.errors import usage
from bntools.kernels.ngrams import ngrams
from bntools.tools.bleu_gpu.batch import Batch, Ids, Side, batch, sentences


def bleu_stats(
    hyp: Ids,
    refs: Ids,
    hyp_len: Ids | None = None,
    ref_len: Ids | None = None,
    pad_id: int | None = None,
    eos_id: int | None = None,
    max_n: int = 4,
    hyp_mask: Tensor | None = None,
    ref_mask: Tensor | None = None,
    hyp_cu: Ids | None = None,
    ref_cu: Ids | None = None,
    ref_rows: Ids | None = None,
) -> Tensor:
    """Statistics [B, 2 + 2 max_n] int32: hyp_len, closest ref_len, correct 1..n, total 1..n (sacrebleu's order).

    hyp: ids [B, L], or groups [B, G, L] that share their references (statistics [B, G, ...]). refs: ids
    [B, R, M], or [B, M] for one reference each. Both may be nested tensors, lists of ragged lists (refs: a list
    of references a row, each row with its own number), or flat with cumulative lengths hyp_cu [B + 1], ref_cu
    [K + 1]; flat or nested references belong to rows by ref_rows [B + 1], cumulative, default one each.
    Lengths: hyp_len [B], ref_len [B, R] (-1: no such reference), or masks of the ids' shape (what is masked out
    is no token, wherever it stands), or the full width. Then a sentence ends before its first eos_id, then
    trailing pad_id are stripped; inner ones are tokens. Rows add up to corpus statistics. Tensors are read in
    place. The result is on hyp's device; on a GPU nothing is read back (flat input: its longest length is) and
    lengths are not checked. Raises BnError on input that does not fit.
    """
    pairs = batch(
        Side("hyp", hyp, hyp_len, hyp_mask, hyp_cu), Side("refs", refs, ref_len, ref_mask, ref_cu),
        ref_rows, pad_id, eos_id,
    )  # fmt: skip
    stats = ngrams.ngram_stats(*pairs[:4], _orders(max_n), pairs.most)
    return stats.view(*pairs.shape, 2 + 2 * max_n)


def prefix_stats(hyp: Ids, refs: Ids, max_n: int = 4, **given: Ids | int | None) -> Tensor:
    """Statistics [B, L, 2 + 2 max_n] of the first 1, 2, ... L ids of each hypothesis, in one pass. CPU.

    Options as in `bleu_stats`; beyond the end of a hypothesis the last statistics stay. The differences of
    scores along L are dense rewards that add up to the score of the whole.
    """
    pairs = _batch(hyp, refs, given)
    hits, begin = ngrams.prefix_hits(*pairs[:4], _orders(max_n))
    width = int(pairs.hyp.length.max()) if len(begin) else 0
    steps = torch.minimum(torch.arange(1, width + 1), pairs.hyp.length[:, None])
    running = torch.nn.functional.pad(hits.cumsum(0, dtype=torch.int32), (0, 0, 1, 0))
    correct = running[begin[:, None] + steps] - running[begin][:, None]
    total = (steps[..., None] - torch.arange(max_n)).clamp(min=0)
    first, last = (x[:, None].expand(-1, width).reshape(-1) for x in (pairs.first, pairs.last))
    nearest = ngrams.closest_length(steps.reshape(-1), pairs.refs.length, first, last).view(steps.shape)
    return torch.cat([steps[..., None], nearest[..., None], correct, total], -1).to(torch.int32)


def reference_stats(hyp: Ids, refs: Ids, max_n: int = 4, **given: Ids | int | None) -> tuple[Tensor, Tensor]:
    """Statistics [K, 2 + 2 max_n] of each hypothesis with each of its references alone, and the rows [K]. CPU."""
    pairs = _batch(hyp, refs, given)
    row, column = _pairs(pairs)
    rows = pairs.hyp._replace(start=pairs.hyp.start[row], length=pairs.hyp.length[row])
    return ngrams.ngram_stats(rows, pairs.refs, column, column + 1, _orders(max_n), 1), row


def self_stats(samples: Ids, group: int, max_n: int = 4, **given: int | None) -> Tensor:
    """Statistics [B, 2 + 2 max_n] of each sample against the other group - 1 of its group (Zhu et al. 2018).

    samples: B sentences, groups one after another. O(tokens) instead of O(group * tokens). CPU.
    """
    side = sentences(Side("hyp", samples), given.get("pad_id"), given.get("eos_id"))
    if group < 2 or len(side.length) % group:
        raise usage(f"{len(side.length)} samples do not divide into groups of {group}", "groups of 2 or more")
    return ngrams.others_stats(side, group, _orders(max_n))


def matrix_stats(samples: Ids, group: int, max_n: int = 4, **given: int | None) -> Tensor:
    """Statistics [groups, G, G, 2 + 2 max_n] of each sample (row) against each of its group (column). CPU.

    The mean over columns of its scores is what minimum-Bayes-risk decoding with BLEU maximises.
    """
    side = sentences(Side("hyp", samples), given.get("pad_id"), given.get("eos_id"))
    count = len(side.length)
    if group < 1 or count % group:
        raise usage(f"{count} samples do not divide into groups of {group}", "groups of one size")
    row = torch.arange(count).repeat_interleave(group)
    column = row // group * group + torch.arange(group).repeat(count)
    rows = side._replace(start=side.start[row], length=side.length[row])
    stats = ngrams.ngram_stats(rows, side, column, column + 1, _orders(max_n), 1)
    return stats.view(-1, group, group, 2 + 2 * max_n)


def _batch(hyp: Ids, refs: Ids, given: dict[str, Ids | int | None]) -> Batch:
    """Both sides on the CPU, from the keyword arguments of `bleu_stats`."""
    known = {"hyp_len", "ref_len", "hyp_mask", "ref_mask", "hyp_cu", "ref_cu", "ref_rows", "pad_id", "eos_id"}
    if unknown := given.keys() - known:
        raise TypeError(f"unexpected {', '.join(sorted(unknown))}")
    own, other = (
        Side(name, _here(ids), *(_here(given.get(f"{short}_{x}")) for x in ("len", "mask", "cu")))
        for name, short, ids in (("hyp", "hyp", hyp), ("refs", "ref", refs))
    )
    return batch(own, other, given.get("ref_rows"), given.get("pad_id"), given.get("eos_id"))  # type: ignore[arg-type]


def _here(value: Ids | int | None) -> Ids | int | None:
    return value.cpu() if isinstance(value, Tensor) else value


def _pairs(pairs: Batch) -> tuple[Tensor, Tensor]:
    """Row and reference of every pair there is."""
    count = pairs.last - pairs.first
    row = torch.repeat_interleave(torch.arange(len(count)), count)
    column = pairs.first[row] + torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    there = pairs.refs.length[column] >= 0
    return row[there], column[there]


def _orders(max_n: int) -> int:
    if max_n < 1:
        raise usage(f"max_n must be at least 1, got {max_n}", "max_n=4")
    return max_n
