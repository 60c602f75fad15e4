"""What a sweep tells of each linear, kept on disk; GPTQ with second moments weighted by what the output minds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bntools.core.importance.fisher_sweep import Sweep
from bntools.core.model.model import Model
from bntools.core.progress import Step, no_step
from bntools.core.system.threads import in_order
from bntools.core.work.array_store import Shelf
from bntools.core.work.folder import Work
from bntools.tools.quantize import units
from bntools.tools.quantize.fixed.calibrated import coded_linear
from bntools.tools.quantize.fixed.gptq import IN_FLIGHT, coding_bytes
from bntools.tools.quantize.fixed.rounding import quantize
from bntools.tools.quantize.plan import Choice, Item, Result, Task

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
    task: Task, windows: Tensor, *, device: str = "cpu", step: Step = no_step, work: Work | None = None
) -> Moments:
    """The moments of all linears to be coded, by one sweep over the windows, or from `work`.

    One block is in memory. Raises BnError as `Sweep` does.
    """
    model = task.model
    moments = Moments(Shelf(work))
    if work is not None and work.has(_SWEPT):
        unit, facts = work.load(_SWEPT)
        unit.close()
        moments.names = facts["names"]
        return moments
    wanted = {item.name for item in task.chosen if len(model.entries[item.name].shape) == 2}
    for _, block in Sweep(model, windows, seed=task.settings.seed, mixed=True, device=device, step=step):
        for name, sensitivity in block.items():
            if name in wanted:
                moments.put(name, sensitivity.inputs, sensitivity.rows)
    if work is not None:
        work.save(_SWEPT, {}, {"names": moments.names})
    return moments


def coded(
    task: Task, choices: Mapping[str, Choice], moments: Moments, work: Work | None = None
) -> Iterator[Result]:
    """GPTQ for every linear with moments, then what is left, rounded to nearest or kept."""
    known = set(moments.names)

    def size(item: Item) -> int:
        return coding_bytes(task.model.entries[item.name].numel, moments_width(task.model, item))

    def coded_item(item: Item) -> Result:
        hessian, _ = moments.get(item.name)
        return coded_linear(task, item, choices.get(item.name), hessian)[0]

    chosen = [item for item in task.items if item.name in known and item.grid]
    others = [item for item in task.items if item.name not in known or not item.grid]
    yield from units.resumed(work, chosen, lambda rest: in_order(coded_item, rest, size, IN_FLIGHT))
    yield from units.resumed(work, others, lambda rest: quantize(task.of(rest), choices))


def moments_width(model: Model, item: Item) -> int:
    """Inputs of a linear."""
    assert item.linear is not None
    return model.entries[item.name].shape[-2 if item.linear.transposed else -1]
