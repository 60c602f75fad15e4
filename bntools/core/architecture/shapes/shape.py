"""What costs of a model derive from: its linears, attentions and embeddings, with sizes and nothing else."""

from __future__ import annotations

from typing import NamedTuple


class LinearShape(NamedTuple):
    """One weight [outputs, inputs]. copies: of it stored, as experts are; active: of them used by a token."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    copies: int = 1
    active: int = 1

    @property
    def parameters(self) -> int:
        return self.copies * (self.inputs + self.bias) * self.outputs

    @property
    def products(self) -> int:
        """Multiply-adds a token."""
        return self.active * self.inputs * self.outputs


class Latent(NamedTuple):
    """Keys and values compressed to `rank` numbers beside `rope` rotated ones, shared by the heads (MLA)."""

    rank: int
    rope: int
    nope: int


class AttentionShape(NamedTuple):
    """Heads and widths of one attention; window: tokens a query sees at most, itself included."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    latent: Latent | None = None

    def seen(self, length: int) -> int:
        """Keys of the last of `length` tokens."""
        return length if self.window is None else min(length, self.window)

    def causal_pairs(self, length: int) -> int:
        """Pairs of a query and a key it may see: sum of min(t, window) over t = 1 .. length."""
        full = self.seen(length)
        return full * (full + 1) // 2 + (length - full) * full

    @property
    def cached(self) -> int:
        """Numbers kept of a token."""
        if self.latent is not None:
            return self.latent.rank + self.latent.rope
        return self.kv_heads * (self.key_dim + self.value_dim)


class LayerShape(NamedTuple):
    """One layer: its linears, its attention, parameters of everything else, elements that pass a norm a token.

    shares_cache: reads keys and values that another layer wrote.
    """

    linears: tuple[LinearShape, ...]
    attention: AttentionShape | None
    other: int
    normed: int
    shares_cache: bool = False


class ModelShape(NamedTuple):
    """A model. embeddings: (rows, width) of its tables, the tokens' first; other: of norms outside the layers.

    outer: linears before and after the layers, applied to every token; head: to the tokens that are predicted.
    """

    model_type: str
    hidden: int
    vocabulary: int
    layers: tuple[LayerShape, ...]
    embeddings: tuple[tuple[int, int], ...]
    outer: tuple[LinearShape, ...]
    head: tuple[LinearShape, ...]
    tied: bool
    other: int
    longest: int | None
    dtype: str
    notes: tuple[str, ...] = ()
