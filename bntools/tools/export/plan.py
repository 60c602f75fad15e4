"""What becomes of each tensor in another format: copied, its codes carried over, or rounded anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bntools.core.errors import bad_input, usage
from bntools.core.foreign import plain_codes
from bntools.core.foreign.plain_codes import PlainCodes
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.packing.grouped import GroupSpec
from bntools.kernels.grouped.bits import unpack
from bntools.tools.export.nearest import nearest


@dataclass(frozen=True)
class Grid:
    """A grid that a format can hold, for [out, in] weights. width: inputs of a group."""

    bits: int
    width: int
    symmetric: bool


@dataclass(frozen=True)
class Source:
    """One packed tensor of the model, without its codes.

    shape: (out, in) of the linear. width: weights of a group. plain: one linear module of its own, plain codes.
    zeros: [out, groups], None where every zero is 2^(bits - 1). half: the scales are float16.
    """

    name: str
    spec: GroupSpec
    shape: tuple[int, int]
    width: int
    plain: bool
    conv1d: bool
    zeros: Tensor | None
    half: bool

    @property
    def module(self) -> str:
        return self.name.removesuffix(".weight")

    @property
    def grid(self) -> Grid:
        return Grid(self.spec.bits, self.width, self.zeros is None)

    @property
    def carried(self) -> str:
        """Empty when codes can be carried over at all, else why not."""
        if self.spec.dim != "oc":
            return f"its groups of {self.width} run along the outputs (per IC)"
        if self.spec.inputs or self.spec.outputs:
            return "its inputs or outputs have factors of their own"
        return "" if self.plain else "it is no plain integer codes on float scales with integer zeros"


class Layout(Protocol):
    """A format: which grids it holds, and how one weight is stored."""

    name: str

    def impossible(self, source: Source) -> str:
        """Why this tensor cannot be stored at all, on whatever grid; empty if it can."""
        ...

    def misfit(self, source: Source) -> str:
        """Why the codes of this tensor cannot be carried over; empty if they can."""
        ...

    def nearest_grid(self, source: Source) -> Grid:
        """The grid of this format to round to instead."""
        ...


@dataclass(frozen=True)
class Item:
    """One tensor: source None, copied; reason empty, codes carried over; else rounded to `grid` for that reason."""

    name: str
    source: Source | None
    grid: Grid | None = None
    reason: str = ""


def plan(model: Model, layout: Layout, requantize: bool) -> list[Item]:
    """What happens to each tensor, in checkpoint order.

    Raises BnError (exit 2) naming the first tensor that the format cannot hold, unless it may be rounded anew.
    """
    items = []
    for name in model.entries:
        if name not in model.packing:
            items.append(Item(name, None))
            continue
        if isinstance(model.packing[name], entropy.EntropySpec):
            raise usage(
                f"--to {layout.name} cannot hold {name}: it is entropy-coded",
                "--to hf writes it dense, then quantize",
            )
        source = _source(model, name)
        never = layout.impossible(source)
        if never:
            raise usage(f"--to {layout.name} cannot hold {name}: {never}", "--to hf writes it dense")
        reason = source.carried or layout.misfit(source)
        if reason and not requantize:
            raise usage(
                f"--to {layout.name} cannot hold {name}: {reason}",
                f"--requantize rounds it to the nearest {layout.name} grid; --to hf writes it dense",
            )
        items.append(Item(name, source, layout.nearest_grid(source) if reason else source.grid, reason))
    return items


def _source(model: Model, name: str) -> Source:
    spec = model.packing[name]
    linear = model.linears.get(name)
    rows, cols = spec.shape[-2:]
    stored = {part: model.store.entries[f"{name}.{part}"].dtype for part in spec.part_shapes()}
    plain = plain_codes.is_plain(spec) and all(
        kind in plain_codes.PLAIN.get(part, ()) for part, kind in stored.items()
    )
    zeros = None
    if plain and len(spec.shape) == 2 and not spec.symmetric:
        zeros = unpack(model.store.tensor(f"{name}.zeros"), spec.bits, spec.groups)
        zeros = None if bool((zeros == 1 << (spec.bits - 1)).all()) else zeros
    if linear is None:
        raise bad_input(f"{name} is packed but is no linear weight of the model", "--to hf writes it dense")
    return Source(
        name=name,
        spec=spec,
        shape=(cols, rows) if spec.transposed else (rows, cols),
        width=plain_codes.width_of(spec),
        plain=plain and len(spec.shape) == 2,
        conv1d=spec.transposed,
        zeros=zeros,
        half=stored.get("scales") == "F16",
    )


@dataclass
class Losses:
    """Squared norms of what rounding anew lost, and of the weights it was applied to."""

    tensors: int = 0
    lost: float = 0.0
    total: float = 0.0
    offsets: int = 0

    def offset(self, before: Tensor, after: Tensor) -> None:
        """A tensor whose offsets alone were rounded, to float16."""
        self.offsets += 1
        self._sum(before, after)

    def add(self, before: Tensor, after: Tensor) -> None:
        """A tensor rounded anew."""
        self.tensors += 1
        self._sum(before, after)

    def _sum(self, before: Tensor, after: Tensor) -> None:
        self.lost += float((after - before).square().sum(dtype=torch.float64))
        self.total += float(before.square().sum(dtype=torch.float64))

    @property
    def relative(self) -> float:
        """||added error|| / ||weight|| over the tensors rounded anew."""
        return float(f"{(self.lost / self.total) ** 0.5:.4g}") if self.total else 0.0


def code(model: Model, item: Item, losses: Losses, lowest_zero: int = 0) -> PlainCodes:
    """The codes of one packed tensor for the new format."""
    source, grid = item.source, item.grid
    assert source is not None
    assert grid is not None
    if not item.reason:
        codes = plain_codes.read(item.name, source.spec, model.store.tensor)
        return codes._replace(zeros=None) if source.zeros is None else codes
    w = model.tensor(item.name, torch.float32)
    w = w.T if source.conv1d else w
    codes = nearest(w, grid.bits, grid.width, grid.symmetric, lowest_zero)
    losses.add(w, codes.dense())
    return codes


def summary(items: list[Item], layout: str, losses: Losses) -> dict[str, Any]:
    """The report of an export: how many tensors went which way, and what rounding anew added."""
    packed = [item for item in items if item.source]
    report: dict[str, Any] = {
        "kind": "export",
        "to": layout,
        "tensors": {
            "copied": len(items) - len(packed),
            "carried": sum(1 for item in packed if not item.reason),
            "requantized": sum(1 for item in packed if item.reason),
        },
    }
    if losses.offsets:
        report["tensors"]["rounded_offsets"] = losses.offsets
    if losses.tensors or losses.offsets:
        report["added_error"] = losses.relative
    if losses.tensors:
        report["reasons"] = dict(Counter(item.reason for item in packed if item.reason))
    return report
