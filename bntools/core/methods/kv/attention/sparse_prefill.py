"""ZipVL's prefill: in every layer attention among its important tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.methods.kv import baselines, token_weights
from bntools.core.methods.kv.watch import AttentionCall


class SparsePrefill:
    """O[T] = Attention(Q[T], K[T], V[T]) for the important tokens T of a layer (ZipVL, arXiv 2410.08584, algorithm 1).

    T comes from the layer's own queries, 128 rows of them, so the choice of a layer sees what earlier ones left out.
    The algorithm names no output for the other tokens: attention adds nothing to them here, they go on as they are.
    Their keys and values are computed, and cached, all the same. `important`: [n] bool by layer, of the last prefill.
    """

    def __init__(self, tau: float, planned: Sequence[int]) -> None:
        self.tau, self.planned = tau, frozenset(planned)
        self.important: dict[int, Tensor] = {}

    def __call__(self, call: AttentionCall) -> Any:
        layer, n = call.module.layer_idx, call.query.shape[2]
        if layer not in self.planned or call.key.shape[2] != n:
            return None
        if call.options.get("position_bias") is not None:
            raise bad_input(
                "attention with a bias of its own has no sparse prefill", "leave --sparse-prefill out"
            )
        received = token_weights.received(call.query, call.key, call.scaling)[0].cpu()
        self.important[layer] = baselines.zipvl_tokens(received, self.tau)
        rows = self.important[layer].nonzero()[:, 0].to(call.query.device)
        mask = None if call.mask is None else call.mask[..., rows, :][..., rows]
        few = call._replace(
            query=call.query[:, :, rows], key=call.key[:, :, rows], value=call.value[:, :, rows], mask=mask
        )
        part = few.run()[0]
        out = part.new_zeros(part.shape[0], n, *part.shape[2:])
        out[:, rows] = part
        return out, None

    def kept(self) -> list[float]:
        """Share of important tokens by layer."""
        return [float(self.important[layer].float().mean()) for layer in sorted(self.important)]

    def products(self) -> float:
        """Share of the products of queries and keys that are left: a mean of p (p + 1) / (n (n + 1)) over layers."""
        pairs = [(int(keep.sum()), len(keep)) for keep in self.important.values()]
        return float(torch.tensor([p * (p + 1) / (n * (n + 1)) for p, n in pairs]).mean())
