"""How much a token is looked at, from a few rows of attention, and the class of steps that follows from it."""

from __future__ import annotations

import torch
from torch import Tensor

PROBES = 64
"""Rows of attention: so many of the last queries, and as many at random."""
POOL = 5
LOWEST, HIGHEST = -3, 4
"""Classes: three bits a token and key head; a class is half an octave of the step."""


def received(q: Tensor, k: Tensor, scaling: float, seed: int = 0) -> Tensor:
    """Mean attention that each key gets of the queries that may see it: [B, key heads, T], from at most 128 rows.

    q [B, heads, n, d]: the last n of the T tokens of k [B, key heads, T, d]; causal.
    """
    n, total = q.shape[2], k.shape[2]
    last = torch.arange(max(n - PROBES, 0), n)
    generator = torch.Generator().manual_seed(seed)
    early = torch.randperm(max(n - PROBES, 0), generator=generator)[:PROBES].sort().values
    rows = torch.cat([early, last]).to(q.device)
    groups = k.shape[1]
    probes = q[:, :, rows].reshape(q.shape[0], groups, -1, len(rows), q.shape[-1])
    logits = torch.einsum("bghrd,bgtd->bghrt", probes.float(), k.float()) * scaling
    visible = (rows + total - n)[:, None] >= torch.arange(total, device=q.device)[None]
    chances = logits.masked_fill(~visible, float("-inf")).softmax(-1)
    return chances.sum((2, 3)) / (visible.sum(0).clamp_min(1) * probes.shape[2])


def step_classes(weight: Tensor, gamma: float) -> Tensor:
    """Classes e [..., T] int8 of steps 2^(e / 2): coarser for tokens that are looked at less than the median."""
    if gamma == 0:
        return torch.zeros(weight.shape, dtype=torch.int8)
    pooled = torch.nn.functional.max_pool1d(
        weight.float().reshape(1, -1, weight.shape[-1]), POOL, 1, POOL // 2
    )
    pooled = pooled.reshape(weight.shape)
    relative = pooled.clamp_min(1e-30) / pooled.median(-1, keepdim=True).values.clamp_min(1e-30)
    return (-gamma * relative.log2()).round().clamp(LOWEST, HIGHEST).to(torch.int8)
