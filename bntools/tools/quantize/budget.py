"""How large the result may be: `2.6` bits per linear weight, or `60MB` for the whole file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from bntools.core.errors import usage
from bntools.core.model import coverage
from bntools.core.system.sizes import UNITS, split_unit

if TYPE_CHECKING:
    from bntools.core.model.model import Model
    from bntools.tools.quantize.plan import Item, Task

_METADATA = 40_000  # bytes of config, report and history, at most
_ENTRY = 450  # bytes of a quantized weight in quantization.json besides its name, at most
_PLACE = 110  # bytes of a tensor in the header besides its name, at most
_PARTS = 6  # tensors that a quantized weight may have


def parse_budget(text: str) -> tuple[float, str]:
    """(value, "bits" or "bytes"): MB is 10^6 bytes, MiB 2^20. Raises BnError (exit 2) on anything else."""
    parts = split_unit(text)
    if parts is None:
        raise usage(
            f"--budget {text!r} is neither bits per weight nor a size", "--budget 2.6, or --budget 60MB"
        )
    value, unit = parts
    if unit:
        return value * UNITS[unit], "bytes"
    if not 0.5 <= value <= 16:
        raise usage(
            f"--budget {text}: bits per weight lie between 0.5 and 16", f"a size has a unit: {text}MB"
        )
    return value, "bits"


def available(task: Task, files: int, spare: int) -> int:
    """Bytes that the quantized weights may take of the budget.

    A budget in bytes covers the whole artifact: what is kept, side files (`files` bytes) and header (bounded from
    above) come off. spare: bytes for what is added later. Raises BnError (exit 2) when nothing is left.
    """
    entries, settings = task.model.entries, task.settings
    if settings.unit == "bits":
        return int(settings.budget * sum(entries[item.name].numel for item in task.chosen) / 8) - spare
    dense = sum(entries[item.name].nbytes for item in task.items if not item.grid)
    header = sum(_header(item) for item in task.items) + _METADATA
    left = int(settings.budget) - dense - files - header
    if left <= spare:
        raise usage(
            f"--budget {settings.budget / 1e6:.1f}MB leaves nothing for the linear weights",
            f"what is kept takes {(dense + files + header) / 1e6:.1f} MB; --code entropy --embedding codes more of it",
        )
    return left - spare


def _header(item: Item) -> int:
    if not item.grid:
        return len(item.name) + _PLACE
    return _PARTS * (len(item.name) + _PLACE) + len(item.name) + _ENTRY


def enough(task: Task, room: int) -> tuple[Task, str]:
    """8 bits for every weight and no budget where they take no more than `room` bytes, and a sentence that says so."""
    from bntools.tools.quantize.plan import spec_of

    settings = task.settings

    def widened(item: Item) -> Item:
        overridden = item.grid is None or item.grid.bits != settings.grid.bits
        return item if overridden or item.grid is None else replace(item, grid=replace(item.grid, bits=8))

    widest = [widened(item) for item in task.items]
    if sum(spec_of(item, item.grid, task.model).nbytes for item in widest if item.grid) > room:
        return task, ""
    plain = replace(settings, grid=replace(settings.grid, bits=8), budget=0, unit="")
    sentence = "the budget is above what 8 bits take, which is what every weight gets"
    return replace(task, items=widest, settings=plain), sentence


def left_dense(model: Model, items: list[Item], coded: Collection[str] | None = None) -> str:
    """A sentence where much of the blocks stays dense that nobody asked to keep, else an empty one."""
    asked = [
        item.name for item in items if item.reason.startswith(("matched by", "not matched", "skipped by"))
    ]
    coded = {item.name for item in items if item.grid} if coded is None else coded
    return coverage.left_dense(model, coded, asked)
