"""A transformer that draws an image scale by scale, each scale at a depth of its own (VAR 2404.02905, VARiant).

All tokens of a scale are drawn at once, from the maps before it. A subnet of k layers takes k equidistant ones of the
full network's, with the same weights, so that depth is switched from scale to scale at no cost; a layer's cache holds
only the scales that passed through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bntools.core.diffusion.next_scale.tokens import SIDES, TOKENS, scale_slices

NO_LABEL = 10
"""The label of an image of any class."""


def equidistant(depth: int, layers: int) -> list[int]:
    """Layers of the subnet of so many: round(linspace(0, layers - 1, depth)) (VARiant)."""
    if depth == 1:
        return [0]
    return [round(i * (layers - 1) / (depth - 1)) for i in range(depth)]


class ScaleCache(Protocol):
    """Keys and values of one layer, [N, heads, tokens, width] each.

    `update` takes those of a scale's map and returns what its queries shall see, those of the map included;
    `observe` is told the map's queries [N, heads, side^2, width] right after.
    """

    def update(self, k: Tensor, v: Tensor, scale_index: int) -> tuple[Tensor, Tensor]: ...
    def observe(self, q: Tensor, scale_index: int) -> None: ...


class WholeCache:
    """Every key and value of one layer; `parts` holds them by scale."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, k: Tensor, v: Tensor, scale_index: int) -> tuple[Tensor, Tensor]:
        """Append a map; returns all keys and all values so far."""
        self.parts[scale_index] = (k, v)
        keys, values = zip(*self.parts.values(), strict=True)
        return torch.cat(keys, 2), torch.cat(values, 2)

    def observe(self, q: Tensor, scale_index: int) -> None:
        """Nothing is chosen, so no query is looked at."""

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held."""
        return sum(part.nbytes for pair in self.parts.values() for part in pair)


class ScaleBlock(nn.Module):
    """Attention, then a GELU layer, both on normed inputs and added to them."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.out.weight)  # an untrained layer passes its input on, so that a subnet can grow
        nn.init.zeros_(self.down.weight)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [N, heads, T, width / heads] of x [N, T, width]."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def finish(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """The block's output from its queries and the keys and values they see; mask [T, keys] True where they do."""
        mixed = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class NextScaleTransformer(nn.Module):
    """Logits of the codes of each scale from the maps before it and a class.

    Inputs are those of `ScaleTokenizer.inputs`; a token's place and the class are added to them.
    """

    def __init__(
        self, entries: int = 256, channels: int = 16, *, width: int = 64, heads: int = 2, layers: int = 12,
        hidden: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        self.read = nn.Linear(channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(TOKENS, width))
        self.label = nn.Embedding(NO_LABEL + 1, width)
        self.blocks = nn.ModuleList(ScaleBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, entries)
        nn.init.normal_(self.label.weight, std=0.3)

    @property
    def layers(self) -> int:
        """Layers of the full network."""
        return len(self.blocks)

    def embed(self, inputs: Tensor, labels: Tensor, where: slice = slice(None)) -> Tensor:
        """Inputs [N, T, C] of the tokens at `where`, and labels [N], to [N, T, width]."""
        return self.read(inputs) + self.place[where] + self.label(labels)[:, None]

    def taught(self, inputs: Tensor, labels: Tensor, depths: Sequence[int]) -> Tensor:
        """Logits [N, TOKENS, entries] at all scales at once, each at its depth: what training needs."""
        x, slices = self.embed(inputs, labels), scale_slices()
        subnets = [set(equidistant(depth, self.layers)) for depth in depths]
        scale_of = torch.repeat_interleave(torch.arange(len(SIDES)), torch.tensor([s * s for s in SIDES]))
        maps = [x[:, where] for where in slices]
        for index, block in enumerate(self.blocks):
            active = [scale for scale, subnet in enumerate(subnets) if index in subnet]
            if not active:
                continue
            owner = torch.cat([scale_of[slices[scale]] for scale in active])
            rows = torch.cat([maps[scale] for scale in active], 1)
            q, k, v = block.heads_of(rows)
            rows = block.finish(rows, q, k, v, owner[:, None] >= owner)
            parts = rows.split([SIDES[scale] ** 2 for scale in active], 1)
            for scale, part in zip(active, parts, strict=True):
                maps[scale] = part
        return self.head(self.norm(torch.cat(maps, 1)))

    def step(
        self, inputs: Tensor, labels: Tensor, scale: int, *, depth: int, caches: Sequence[ScaleCache]
    ) -> Tensor:
        """Logits [N, side^2, entries] of one scale at some depth, through the caches of the layers."""
        x = self.embed(inputs, labels, scale_slices()[scale])
        for index in equidistant(depth, self.layers):
            block, cache = self.blocks[index], caches[index]
            q, k, v = block.heads_of(x)
            keys, values = cache.update(k, v, scale)
            cache.observe(q, scale)
            x = block.finish(x, q, keys, values)
        return self.head(self.norm(x))
