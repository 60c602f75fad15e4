"""What a sweep tells of each linear, kept on disk; GPTQ with second moments weighted by what the output minds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bntools.core.importance.fisher_sweep import Sweep
from bntools.core.model.model import Model
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.core.work.folder import Work
from bntools.tools.quantize import kept
from bntools.tools.quantize.calibrated import coded_linear
from bntools.tools.quantize.cost import IN_FLIGHT, coding_bytes
from bntools.tools.quantize.pipeline import Choice, Item, Result, quantize
from bntools.tools.quantize.settings import Settings

_SWEPT, _UNIT = "swept", "moments {}".format  # units of a --work folder


@dataclass
class Moments:
    """Of every linear that was swept: H [in, in] (`metric.mixed`) and the rows' sensitivities E[g_i^2] [out]."""

    shelf: Shelf
    names: list[str] = field(default_factory=list)

    def put(self, name: str, hessian: Tensor, rows: Tensor) -> None:
        """Put the moments of a linear away."""
        self.shelf.put(_UNIT(name), [hessian.cpu().numpy(), rows.cpu().numpy()])
        self.names.append(name)

    def get(self, name: str) -> tuple[Tensor, Tensor]:
        """(H, sensitivities) of a linear."""
        hessian, rows = map(torch.from_numpy, self.shelf.get(_UNIT(name)))
        return hessian, rows

    def squares(self) -> dict[str, Tensor]:
        """The diagonals of H by name."""
        return {name: self.get(name)[0].diagonal().clone() for name in self.names}


def swept(
    model: Model, items: list[Item], windows: Tensor, seed: int, device: str, step: Callable[[int], None],
    work: Work | None = None,
) -> Moments:  # fmt: skip
    """The moments of all linears to be coded, by one sweep over the windows, or from `work`.

    One block is in memory. Raises BnError as `Sweep` does.
    """
    found = Moments(Shelf(work))
    if work is not None and work.has(_SWEPT):
        unit, facts = work.load(_SWEPT)
        unit.close()
        found.names = facts["names"]
        return found
    wanted = {item.name for item in items if item.grid and len(model.entries[item.name].shape) == 2}
    for _, block in Sweep(model, windows, seed=seed, mixed=True, device=device, step=step):
        for name, one in block.items():
            if name in wanted:
                found.put(name, one.inputs, one.rows)
    if work is not None:
        work.save(_SWEPT, {}, {"names": found.names})
    return found


def coded(
    model: Model, items: list[Item], choices: Mapping[str, Choice], settings: Settings, moments: Moments,
    work: Work | None = None,
) -> Iterator[Result]:  # fmt: skip
    """GPTQ for every linear with moments, then what is left, rounded to nearest or kept."""
    known = set(moments.names)

    def size(item: Item) -> int:
        return coding_bytes(model.entries[item.name].numel, moments_width(model, item))

    def one(item: Item) -> Result:
        hessian, _ = moments.get(item.name)
        return coded_linear(model, item, choices.get(item.name), settings, hessian)[0]

    chosen = [item for item in items if item.name in known and item.grid]
    left = [item for item in items if item.name not in known or not item.grid]
    yield from kept.resumed(work, chosen, lambda rest: in_order(one, rest, size, IN_FLIGHT))
    yield from kept.resumed(work, left, lambda rest: quantize(model, rest, choices, settings))


def moments_width(model: Model, item: Item) -> int:
    """Inputs of a linear."""
    assert item.linear is not None
    return model.entries[item.name].shape[-2 if item.linear.transposed else -1]
