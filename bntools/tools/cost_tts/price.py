"""What generating costs in equivalent FLOPs: compute plus the device's FLOPs a byte times the bytes read.

Kinetics (arXiv 2506.05333) prices a trial so. Its public code sums keys in closed forms that are wrong for sparse
attention: for a budget B above the prompt it adds (B - prompt)^2 / 2 where the sum takes it away. These sums are exact.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from bntools.core.architecture.shapes import counts
from bntools.core.architecture.shapes.shape import AttentionShape, LayerShape, LinearShape, ModelShape
from bntools.core.errors import usage


class Sparse(NamedTuple):
    """Keys a query reads at most, and the size of blocks whose means are searched for them (0: no search)."""

    budget: int
    block: int = 0


class Spent(NamedTuple):
    """One trial: FLOPs, bytes of its own, and bytes a token of the prompt that trials can share."""

    flops: int
    own_bytes: float
    prompt_bytes: float


@dataclass(frozen=True)
class Price:
    """A model's way of being run. intensity: FLOPs that a byte is worth; 0 prices compute alone.

    batch: sequences that share a reading of the weights, None for so many that it costs nothing.
    """

    shape: ModelShape
    intensity: float
    kv_bytes: float = 2.0
    sparse: Sparse | None = None
    batch: int | None = None
    weight_bytes: float = 0.0

    @cached_property
    def _layers(self) -> list[tuple[LayerShape, int]]:
        """Layers that are alike, and how many of them there are."""
        return list(Counter(self.shape.layers).items())

    def trial(self, prompt: int, generated: int) -> Spent:
        """Cost of `generated` tokens after a prompt, every layer as it is; dense where sparse would cost more."""
        dense = self._trial(prompt, generated, None)
        if self.sparse is None:
            return dense
        sparse = self._trial(prompt, generated, self.sparse)
        return min(dense, sparse, key=lambda spent: self.equivalent(spent, prompt, 1))

    def equivalent(self, spent: Spent, prompt: int, sharing: float) -> float:
        """Equivalent FLOPs of a trial whose readings of the prompt are shared by `sharing` trials."""
        return spent.flops + self.intensity * (spent.own_bytes + spent.prompt_bytes / sharing)

    def _trial(self, prompt: int, generated: int, sparse: Sparse | None) -> Spent:
        linears = counts.products(self.shape.outer) + counts.products(self.shape.head)
        products, own, shared = 0, 0.0, 0.0
        for layer, count in self._layers:
            linears += count * counts.products(layer.linears)
            if layer.attention is None:
                continue
            caps = [size for size in (layer.attention.window, sparse.budget if sparse else None) if size]
            cap = min(caps) if caps else None
            fixed, each = attention_products(layer.attention, layer.linears)
            seen = sum_seen(prompt, generated, cap)
            linears += count * fixed
            products += count * each * seen
            if cap is None:
                shared += count * prompt * generated * layer.attention.cached
                seen -= prompt * generated
            own += count * layer.attention.cached * seen
            if sparse and sparse.block and layer.attention.window is None:
                blocks = count * (
                    sum_blocks(prompt + generated, sparse.block) - sum_blocks(prompt, sparse.block)
                )
                products += blocks * layer.attention.heads * layer.attention.key_dim
                own += blocks * layer.attention.kv_heads * layer.attention.key_dim
        weights = generated * self.weight_bytes / self.batch if self.batch else 0.0
        return Spent(
            2 * (generated * linears + products), self.kv_bytes * own + weights, self.kv_bytes * shared
        )


def attention_products(attention: AttentionShape, linears: tuple[LinearShape, ...]) -> tuple[int, int]:
    """Multiply-adds of a step's attention: besides the linears, and a key; latent attention in absorbed form."""
    if attention.latent is None:
        return 0, counts.pair_products(attention)
    expand = next(linear.products for linear in linears if linear.name == "kv_b_proj")
    none = counts.absorbed_step(attention, 0)
    return none - expand, counts.absorbed_step(attention, 1) - none


def sum_seen(prompt: int, generated: int, cap: int | None = None) -> int:
    """Keys read over a trial: the sum of min(cap, prompt + t) over t = 1 .. generated."""
    if cap is None:
        return prompt * generated + generated * (generated + 1) // 2
    rising = min(max(cap - prompt, 0), generated)
    return prompt * rising + rising * (rising + 1) // 2 + cap * (generated - rising)


def sum_blocks(length: int, size: int) -> int:
    """Blocks begun by 1 .. length tokens, summed."""
    whole, rest = divmod(length, size)
    return size * whole * (whole + 1) // 2 + rest * (whole + 1)


def published_topk(prompt: int, generated: int, budget: int) -> float:
    """The sum of keys as Kinetics' public code has it, for comparison: its last term has the wrong sign."""
    return budget * generated + 0.5 * (budget - prompt) ** 2 if budget > prompt else budget * generated


def parse_sparse(text: str | None) -> Sparse | None:
    """`topk:1024`, or `block:1024/16` with a search over means of 16 keys. Raises BnError (exit 2)."""
    if text is None:
        return None
    match = re.fullmatch(r"topk:([1-9]\d*)|block:([1-9]\d*)/([1-9]\d*)", text)
    if match is None:
        raise usage(f"--sparse {text!r} is no budget of keys", "--sparse topk:1024, or block:1024/16")
    return Sparse(int(match[1])) if match[1] else Sparse(int(match[2]), int(match[3]))
