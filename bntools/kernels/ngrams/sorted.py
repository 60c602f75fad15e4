"""N-gram statistics by sorting, in plain torch: for devices and lengths that `ngrams_triton` is not for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from bntools.kernels.ngrams.ngrams import Sentences

CHUNK = 1 << 22
"""Positions sorted at a time: some 15 int64 temporaries of 34 MB each."""


def ngram_stats(
    hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int, most: int
) -> Tensor:
    """`ngrams.ngram_stats` by two sorts of names an order, on any device; no value is read back by the host.

    most: references a row at most. Rows are sorted side by side, padded to T = width + most * refs.width.
    Work: 2 max_n sorts of T int64 a row. 256 x 4096 ids a side, one reference (2.1 M positions): a radix sort
    with places moves 16 B a position and pass in and out, 8 passes: 8 sorts are 4.3 GB, at full bandwidth
    2.8 ms on an A100 of 1.555 TB/s, 1.3 ms on an H100 of 3.35 TB/s. Computed, never run on a GPU.
    """
    step = max(1, CHUNK // max(1, hyp.width + most * refs.width))
    parts = [
        _rows(
            hyp._replace(start=hyp.start[i : i + step], length=hyp.length[i : i + step]),
            refs,
            first[i : i + step],
            last[i : i + step],
            max_n,
            most,
        )
        for i in range(0, len(first), step)
    ]
    return torch.cat(parts) if parts else first.new_zeros(0, 2 + 2 * max_n, dtype=torch.int32)


def _rows(hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int, most: int) -> Tensor:
    column = first[:, None] + torch.arange(most, device=first.device)
    there = column < last[:, None]
    column = torch.where(there, column, 0)
    ref_len = torch.where(there, refs.length[column], -1)
    ids, left = _grid(hyp.ids, hyp.start[:, None], hyp.length[:, None], hyp.width)
    others, theirs = _grid(refs.ids, refs.start[column], ref_len, refs.width)
    name = _dense(torch.cat([ids.to(torch.int64), others.to(torch.int64)], 1))
    left = torch.cat([left, theirs], 1)
    side = torch.repeat_interleave(
        torch.arange(most + 1, device=first.device),
        torch.tensor([hyp.width] + [refs.width] * most, device=first.device),
        output_size=left.shape[1],
    )
    totals = [(hyp.length - n).clamp(min=0) for n in range(max_n)]
    correct = _matches(name, left, side.expand_as(left), max_n)
    closest = _closest(hyp.length[:, None], ref_len)
    return torch.stack([hyp.length, closest, *correct, *totals], 1).to(torch.int32)


def _grid(ids: Tensor, start: Tensor, length: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Ids [B, S * width] of S sentences a row, and how many ids are left from each position on."""
    at = torch.arange(width, device=ids.device)
    left = (length[..., None] - at).clamp(min=0)
    place = torch.where(left > 0, start[..., None] + at, 0)
    return pad(ids, (0, 1))[place].flatten(1), left.flatten(1)


def _dense(key: Tensor) -> Tensor:
    """Equal keys of a row to equal names, smaller than the row is long."""
    ordered, place = key.sort(1)
    new = pad((ordered[:, 1:] != ordered[:, :-1]).to(torch.int64), (1, 0))
    return torch.empty_like(key).scatter(1, place, new.cumsum(1)[:, : key.shape[1]])


def _matches(name: Tensor, left: Tensor, side: Tensor, max_n: int) -> list[Tensor]:
    """Per order, [B] sum over n-grams of min(count in side 0, max over other sides of count)."""
    width, sides, gram, none = max(name.shape[1], 1), name.shape[1] + 1, name, torch.zeros_like(name)
    correct = []
    for n in range(1, max_n + 1):
        if n > 1:
            gram = _dense(gram * width + name.roll(1 - n, 1))
        valid = (left >= n).to(torch.int64)
        pair = _dense(gram * sides + side)
        times = none.scatter_add(1, pair, valid).gather(1, pair)
        limit = none.scatter_reduce(1, gram, torch.where(side > 0, times, 0), "amax")
        count = none.scatter_add(1, gram, torch.where(side == 0, valid, 0))
        correct.append(torch.minimum(limit, count).sum(1))
    return correct


def _closest(hyp_len: Tensor, ref_len: Tensor) -> Tensor:
    """[B] of lengths [B, 1] and [B, R]."""
    apart = (ref_len - hyp_len).abs() * 2 + (ref_len > hyp_len)
    nearest = torch.where(ref_len < 0, torch.iinfo(torch.int64).max, apart).argmin(1, keepdim=True)
    return ref_len.gather(1, nearest)[:, 0]
