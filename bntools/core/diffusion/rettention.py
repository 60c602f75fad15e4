"""Sparse attention inside a diffusers transformer: each layer's own processor, its one dense product replaced.

Attention to a band of blocks, plain or with the statistics of full attention from earlier steps (Re-ttention, arXiv
2505.22918). The library's processors keep their projections, norms and rotations: only the call of
scaled_dot_product_attention within them is answered here, so no processor is copied.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from bntools.core.errors import usage
from bntools.kernels.attention.blocks import BlockTable, band, sparse_attention
from bntools.kernels.attention.rettention import Statistics, full_step, sparse_step

TEXT = {
    "SD3Transformer2DModel": "last",
    "PixArtTransformer2DModel": "none",
    "CogVideoXTransformer3DModel": "first",
}
"""Where the text lies in the rows of self-attention, by class of the transformer; PixArt's crosses over apart."""

Products = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of q, k, v [N, heads, T, d], dense tokens last."""


@dataclass(frozen=True)
class SparseChoice:
    """kind: `rettention`, or `sparse`, the softmax over the band alone; sparsity: of the band; warmup: first steps in
    full; every: then each so many steps in full again; drift: added to the ratio at sparse steps (the authors' code
    for PixArt: 0.04 a step since the last full one)."""

    kind: str = "rettention"
    sparsity: float = 0.9
    warmup: int = 5
    every: int = 5
    drift: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("rettention", "sparse"):
            raise usage(f"--attention {self.kind} is none of dense, rettention, sparse")
        if not 0 <= self.sparsity < 1:
            raise usage(f"a sparsity of {self.sparsity} is not in [0, 1)", "--attention rettention:0.9")
        if self.warmup < 1 or self.every < 1:
            raise usage("the first step is a full one, and full steps come back", "warmup 5, every 5")


def parse_attention(text: str) -> SparseChoice | None:
    """`dense`, `rettention`, `rettention:0.95` or `sparse:0.9`. Raises BnError (exit 2)."""
    kind, _, number = text.partition(":")
    if kind == "dense" and not number:
        return None
    try:
        return SparseChoice(kind, float(number) if number else 0.9)
    except ValueError:
        raise usage(f"--attention {text}: {number} is no sparsity", "--attention rettention:0.9") from None


class LayerState(NamedTuple):
    """Steps taken in a context since the last reset; steps since the last full one; the statistics of that."""

    steps: int = 0
    age: int = 0
    statistics: Statistics | None = None


class SparseProcessor:
    """A layer's processor whose self-attention is sparse.

    inner: the library's processor; context: names whose pass this is, with or without the prompt, since each has
    statistics of its own. A sequence of another length than the last starts anew, with a full step.
    """

    def __init__(self, inner: Any, choice: SparseChoice, text: str, context: list[str]) -> None:
        self.inner, self.choice, self.text, self.context = inner, choice, text, context
        self.states: dict[str, LayerState] = defaultdict(LayerState)
        self.tables: dict[tuple[int, int], BlockTable] = {}

    def reset(self) -> None:
        """Forget all statistics: another sample or another resolution begins."""
        self.states.clear()

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, image_rotary_emb: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        # the library passes on only what the processor's signature names
        named = {"attention_mask": attention_mask, "image_rotary_emb": image_rotary_emb}
        kwargs |= {name: value for name, value in named.items() if value is not None}
        text = encoder_hidden_states
        if self.text == "none" and text is not None:  # attention to the text alone
            return self.inner(attn, hidden_states, text, **kwargs)
        count = 0 if text is None else text.shape[1]

        def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if self.text != "first" or not count:
                return self.attend(q, k, v, count)
            q, k, v = (x.roll(-count, 2) for x in (q, k, v))
            return self.attend(q, k, v, count).roll(count, 2)

        with _Answer(products):
            return self.inner(attn, hidden_states, text, **kwargs)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dense: int) -> Tensor:
        """Attention of this step; q, k, v [N, heads, T, d], the last `dense` tokens seen by all."""
        size = (q.shape[2], dense)
        if size not in self.tables:
            table = band(size[0] - dense, self.choice.sparsity, dense=dense)
            self.tables[size] = table._replace(keys=table.keys.to(q.device))
        table, name = self.tables[size], self.context[-1]
        if self.choice.kind == "sparse":
            return sparse_attention(q, k, v, table)[0]
        state = self.states[name]
        if state.statistics is not None and state.statistics.residual.shape != q.shape:
            state = LayerState()
        mixed, self.states[name] = self._step(q, k, v, table, state)
        return mixed

    def _step(
        self, q: Tensor, k: Tensor, v: Tensor, table: BlockTable, state: LayerState
    ) -> tuple[Tensor, LayerState]:
        steps = state.steps
        if steps < self.choice.warmup - 1:
            return scaled_dot_product_attention(q, k, v), LayerState(steps + 1)
        if steps < self.choice.warmup or steps % self.choice.every == 0 or state.statistics is None:
            mixed, statistics = full_step(q, k, v, table)
            return mixed, LayerState(steps + 1, 0, statistics)
        drift = self.choice.drift * (state.age + 1)
        mixed = sparse_step(q, k, v, table, state.statistics, drift=drift)
        return mixed, LayerState(steps + 1, state.age + 1, state.statistics)


class _Answer(TorchFunctionMode):
    """Answers unmasked self-attention in its own way while it is active."""

    def __init__(self, products: Products) -> None:
        super().__init__()
        self.products = products

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention and len(args) == 3 and kwargs.get("attn_mask") is None:
            q, k, v = args
            if q.shape == k.shape:
                return self.products(q, k, v)
        return func(*args, **kwargs)


def attention_processor(
    name: str, inner: Any, *, sparsity: float = 0.9, warmup: int = 5, every: int = 5, drift: float = 0.0,
    text: str = "last", context: list[str] | None = None,
) -> SparseProcessor:  # fmt: skip
    """A processor for `set_attn_processor` around the one that a layer has. text: of TEXT."""
    return SparseProcessor(
        inner, SparseChoice(name, sparsity, warmup, every, drift), text, context or ["cond"]
    )


class SparseAttention:
    """Sparse attention in every layer of a transformer; `remove` puts the library's processors back."""

    def __init__(self, transformer: Any, choice: SparseChoice) -> None:
        name = type(transformer).__name__
        if name not in TEXT:
            raise usage(f"no sparse attention in {name}", f"it is for {', '.join(TEXT)}")
        self.transformer, self.originals, self._context = (
            transformer,
            dict(transformer.attn_processors),
            ["cond"],
        )
        self.layers = {
            key: SparseProcessor(inner, choice, TEXT[name], self._context)
            for key, inner in self.originals.items()
        }
        transformer.set_attn_processor(dict(self.layers))

    def reset(self) -> None:
        """Forget all statistics, where a trajectory or a resolution begins."""
        for layer in self.layers.values():
            layer.reset()

    @contextlib.contextmanager
    def context(self, name: str) -> Iterator[None]:
        """Calls with and without the prompt keep statistics of their own."""
        self._context.append(name)
        try:
            yield
        finally:
            self._context.pop()

    def remove(self) -> None:
        """The transformer as it was."""
        self.transformer.set_attn_processor(dict(self.originals))

    @property
    def sparsity(self) -> float | None:
        """Of the table last used, what is left out in truth; None before the first step."""
        tables = [table for layer in self.layers.values() for table in layer.tables.values()]
        return tables[-1].sparsity if tables else None
