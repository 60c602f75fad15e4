"""A model known by its configs alone: sizes, clock and price, no weights."""

from __future__ import annotations

import json

from torch import Tensor

from bntools.core.diffusion.costs import ForwardCost, forward_cost
from bntools.core.diffusion.digits import FOLDER, NAME, SHIFT, SIDE
from bntools.core.diffusion.field import Clock, Field
from bntools.core.diffusion.pipeline import PipelineFacts
from bntools.core.errors import usage
from bntools.kernels.spectral.handoff import Size


class PlannedField(Field):
    """passes: of the transformer a velocity, two with guidance."""

    def __init__(self, facts: PipelineFacts, shape: tuple[int, ...], passes: int) -> None:
        adapter = facts.adapter
        self.label, self.kind, self.shape, self.patch = facts.label, adapter.transformer, shape, adapter.patch
        self.clock = facts.clock(adapter, shape)
        self._stacks, self._text, self._passes = adapter.stacks(), adapter.text(), passes

    def velocity(self, x: Tensor, t: float, rows: slice) -> Tensor:
        raise usage(f"{self.label} was opened for a plan", "leave out --plan")

    def cost(self, size: Size) -> ForwardCost:
        frames = self.shape[1] if len(self.shape) == 4 else 1
        tokens = frames * (size[0] // self.patch) * (size[1] // self.patch)
        return forward_cost(self._stacks, tokens, self._text).times(self._passes)


def planned_digits(passes: int) -> PlannedField:
    """Of the embedded model."""
    config = json.loads((FOLDER / "config.json").read_text())
    facts = PipelineFacts(NAME, FOLDER, config, {"shift": SHIFT}, False)
    planned = PlannedField(facts, (1, SIDE, SIDE), passes)
    planned.kind, planned.trained, planned._text = "digits", (SIDE // 2, SIDE), 1
    planned.clock = Clock(SHIFT)
    return planned
