"""What happens to each tensor of a checkpoint, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from bntools.core.architecture import linears
from bntools.core.architecture.linears import Linear
from bntools.core.artifact import dtypes
from bntools.core.model.model import Model
from bntools.core.packing.entropy import EntropySpec
from bntools.core.packing.grouped import GroupSpec
from bntools.tools.quantize.settings import BALANCE_STEPS, EntropySettings, Grid, Settings

_SMALLEST = 8  # a matrix with fewer rows or columns is a gate, not worth a grid
Errors = dict[str, float]  # by dimension
Importance = Mapping[str, Tensor]  # E[x_j^2] of the inputs [in], by tensor name


@dataclass(frozen=True)
class Item:
    """One tensor of the checkpoint: its grid, or the reason why it is kept."""

    name: str
    linear: Linear | None
    grid: Grid | None
    reason: str = ""


@dataclass(frozen=True)
class Task:
    """A model, what happens to each of its tensors, and the settings that decide how."""

    model: Model
    items: list[Item]
    settings: Settings

    @property
    def chosen(self) -> list[Item]:
        """The items to be quantized."""
        return [item for item in self.items if item.grid]

    @property
    def entropy(self) -> EntropySettings:
        """What is asked of the entropy code, where that is the code."""
        assert self.settings.entropy is not None
        return self.settings.entropy

    def of(self, items: list[Item]) -> Task:
        """The same for other items."""
        return replace(self, items=items)


@dataclass(frozen=True)
class Choice:
    """Errors of both dimensions of one tensor, and the criterion that gave them."""

    criterion: str
    errors: Errors


@dataclass
class Result:
    """One finished tensor: what goes into the artifact, and how it was made."""

    name: str
    tensors: dict[str, Tensor]
    spec: GroupSpec | EntropySpec | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def task_of(model: Model, settings: Settings) -> Task:
    """The task of quantizing a whole model."""
    return Task(model, plan(model, settings), settings)


def plan(model: Model, settings: Settings) -> list[Item]:
    """What happens to each tensor, in checkpoint order."""
    return [_item(model, settings, name) for name in model.entries]


def _item(model: Model, settings: Settings, name: str) -> Item:
    entry = model.entries[name]
    linear = model.linears.get(name) or model.routers.get(name)
    if linear is None:
        kind = (
            "vector (norm, bias)" if len(entry.shape) < 2 else "not a linear weight (embedding, head, router)"
        )
        return Item(name, None, None, kind)
    reason = settings.wanted(name)
    if not reason and linear.router and not settings.include:
        reason = "a router: it chooses experts"
    if not reason and entry.dtype not in dtypes.FLOATS:
        reason = f"type {entry.dtype} is not a float type"
    if not reason and min(entry.shape[-2:]) < _SMALLEST:
        reason = f"fewer than {_SMALLEST} rows or columns"
    return Item(name, linear, None, reason) if reason else Item(name, linear, settings.grid_of(name))


def spec_of(item: Item, grid: Grid, model: Model) -> GroupSpec:
    """How a tensor will be packed on a grid whose dimension is chosen."""
    assert item.linear is not None
    entry = model.entries[item.name]
    dim = "oc" if grid.dim == "ada" else grid.dim
    return GroupSpec(
        grid.bits, grid.group, dim, grid.symmetric, entry.shape, entry.dtype, item.linear.transposed,
        grid.meta, grid.trellis, BALANCE_STEPS if grid.balance and dim == "oc" else 0,
    )  # fmt: skip


def skipped(results: list[Result]) -> dict[str, str]:
    """Why each tensor that could have been coded was not."""
    return {
        result.name: result.reason
        for result in results
        if result.spec is None and not result.reason.startswith("vector")
    }


def gains_of(network: Any, model: Model) -> dict[str, str]:
    """Gains of the norms of a built model: parameter name to the tensor of the checkpoint it is, where it is one."""
    rename = linears.renamer(linears.skeleton(model.config))
    tensors = {rename(name): name for name, entry in model.entries.items() if len(entry.shape) == 1}
    norms = [
        f"{path}.weight"
        for path, module in network.named_modules()
        if "norm" in type(module).__name__.lower()
    ]
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    return {
        name: tensors[name] for name in norms
        if name in tensors and shapes.get(name) == tuple(model.entries[tensors[name]].shape)
    }  # fmt: skip
