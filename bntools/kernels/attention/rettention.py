"""Sparse attention that keeps the statistics of full attention from step to step (Re-ttention, arXiv 2505.22918).

A full step caches, for every query, the share rho of the softmax that the mask holds, and the residual R, what the
rest adds to the output. A sparse step returns rho softmax_mask(q k^T) v + R: its rows sum to rho, not to 1, as the
same rows of full attention do. At a full step both are exact; with every block in the mask rho = 1 and R = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bntools.kernels.attention.blocks import BlockTable, dense_attention, sparse_attention


class Statistics(NamedTuple):
    """ratio [N, heads, T, 1] in (0, 1]; residual [N, heads, T, d]."""

    ratio: Tensor
    residual: Tensor


def full_step(q: Tensor, k: Tensor, v: Tensor, table: BlockTable) -> tuple[Tensor, Statistics]:
    """Full attention, and its statistics under a table."""
    whole, lse = dense_attention(q, k, v)
    partial, partial_lse = sparse_attention(q, k, v, table)
    ratio = torch.exp(partial_lse - lse).clamp(max=1.0)[..., None]
    return whole, Statistics(ratio, whole - ratio * partial)


def sparse_step(
    q: Tensor, k: Tensor, v: Tensor, table: BlockTable, statistics: Statistics, *, drift: float = 0.0
) -> Tensor:
    """Attention over the table with the cached statistics; drift is added to the ratio, which never exceeds 1."""
    mixed, _ = sparse_attention(q, k, v, table)
    ratio = statistics.ratio if drift == 0 else (statistics.ratio + drift).clamp(max=1.0)
    return torch.addcmul(statistics.residual, mixed, ratio)
