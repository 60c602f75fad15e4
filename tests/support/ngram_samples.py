"""Sentences as the kernels take them."""

from __future__ import annotations

from itertools import chain

import torch

from bntools.kernels.ngrams.ngrams import Sentences


def sentences(rows: list[list[int]], dtype: torch.dtype) -> Sentences:
    length = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    ids = torch.tensor(list(chain.from_iterable(rows)), dtype=dtype)
    return Sentences(ids, length.cumsum(0) - length, length, max(map(len, rows), default=0))


def packed(
    data: tuple[list[list[int]], list[list[list[int]]]], dtype: torch.dtype
) -> tuple[Sentences, Sentences, torch.Tensor, torch.Tensor]:
    """Hypotheses, references, and which references belong to each row."""
    hyps, refs = data
    last = torch.tensor([len(row) for row in refs], dtype=torch.int64).cumsum(0)
    first = last - torch.tensor([len(row) for row in refs], dtype=torch.int64)
    return sentences(hyps, dtype), sentences(list(chain.from_iterable(refs)), dtype), first, last
