"""A transformer of the library diffusers as a velocity field."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bntools.core.diffusion.adapters.adapter import Adapter, Condition, take
from bntools.core.diffusion.caches import CacheChoice, FeatureCache
from bntools.core.diffusion.costs import ForwardCost, forward_cost
from bntools.core.diffusion.field import UNSHIFTED, Clock, Field
from bntools.core.diffusion.rettention import SparseAttention, SparseChoice
from bntools.kernels.spectral.handoff import Size


@dataclass(frozen=True)
class Guidance:
    """scale: of the prompt against no prompt; above 1 with `negative` conditions, two passes a velocity are made."""

    scale: float = 1.0
    negative: Condition | None = None

    @property
    def passes(self) -> int:
        return 2 if self.scale != 1.0 and self.negative is not None else 1


class TransformerField(Field):
    """adapter: of the transformer's class; shape: full resolution; condition: tensors of all samples of the run."""

    def __init__(
        self, label: str, transformer: Any, adapter: Adapter, *, shape: tuple[int, ...], condition: Condition,
        guidance: Guidance = Guidance(), clock: Clock = UNSHIFTED,
    ) -> None:  # fmt: skip
        self.label, self.kind, self.shape, self.clock = label, adapter.transformer, shape, clock
        self.patch, self.adapter, self.transformer = adapter.patch, adapter, transformer
        self.condition, self.guidance = condition, guidance
        self.cache: FeatureCache | None = None
        self.sparse: SparseAttention | None = None
        parameter = next(transformer.parameters())
        self._type, self._device = parameter.dtype, parameter.device

    def use_cache(self, choice: CacheChoice | None) -> None:
        if choice is not None:
            self.cache = FeatureCache(self.transformer, choice)

    def use_attention(self, choice: SparseChoice | None) -> None:
        """Attend as chosen from now on; None: as the library does. Raises BnError (exit 2) where it cannot."""
        if choice is not None:
            self.sparse = SparseAttention(self.transformer, choice)

    def boundary(self) -> None:
        for each in (self.cache, self.sparse):
            if each is not None:
                each.reset()

    @torch.no_grad()
    def velocity(self, x: Tensor, t: float, rows: slice) -> Tensor:
        with_prompt = self._pass(x, t, take(self.condition, rows), "cond")
        if self.guidance.passes == 1 or self.guidance.negative is None:
            return with_prompt
        without = self._pass(x, t, take(self.guidance.negative, rows), "uncond")
        return without + self.guidance.scale * (with_prompt - without)

    def _pass(self, x: Tensor, t: float, condition: Condition, name: str) -> Tensor:
        inputs = self.inputs(condition, tuple(x.shape), t)
        context = self.cache.context(name) if self.cache else contextlib.nullcontext()
        attention = self.sparse.context(name) if self.sparse else contextlib.nullcontext()
        latents = self.adapter.pack(self.adapter.scaled(x, t)).to(self._device, self._type)
        with context, attention:
            output = self.transformer(hidden_states=latents, **inputs, return_dict=False)[0]
        spatial = self.adapter.unpack(output.to(x), tuple(x.shape[1:]))
        return self.adapter.velocity(spatial, x, t)

    def inputs(self, condition: Condition, shape: tuple[int, ...], t: float) -> dict[str, Any]:
        """Keyword arguments of one pass, on the transformer's device and in its type."""
        arguments = self.adapter.inputs(condition, shape, t, self.guidance.scale)
        return {key: self._moved(value) for key, value in arguments.items()}

    def _moved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._moved(each) for key, each in value.items()}
        if isinstance(value, tuple):
            return tuple(self._moved(each) for each in value)
        if not isinstance(value, Tensor):
            return value
        return value.to(self._device, self._type if value.is_floating_point() else value.dtype)

    def cost(self, size: Size) -> ForwardCost:
        text = self.condition[self.adapter.conditions[0]].shape[1]
        frames = self.shape[1] if len(self.shape) == 4 else 1
        tokens = frames * (size[0] // self.patch) * (size[1] // self.patch)
        return forward_cost(self.adapter.stacks(), tokens, text).times(self.guidance.passes)
