"""The plan of a run, without doing it: what it reads, writes, holds in memory, and how long it takes."""

from __future__ import annotations

from typing import Any

from bntools.tools.quantize.cost import entropy, fixed
from bntools.tools.quantize.cost.passes import Text
from bntools.tools.quantize.plan import Task, spec_of
from bntools.tools.quantize.windows import Calibration, calibration

_LIBRARIES = 450_000_000  # resident bytes of torch and transformers, loaded
_IN_FLIGHT = 512 << 20  # bytes of tensors worked on at once


def plan_of(task: Task, started: float) -> dict[str, Any]:
    """The report of --dry-run. started: seconds that the run has taken so far."""
    source = calibration(task)
    windows = source.stand_in()
    report = estimate(task)
    if task.settings.entropy is not None:
        assert windows is not None
        text = Text(len(windows), windows.shape[1])
        report |= {"calib_tokens": text.tokens, **entropy.sizes(task)}
        report["memory_bytes"] = entropy.memory_bytes(task, text)
        report["seconds"] = entropy.seconds(task, text)
    else:
        if windows is not None:
            report["calib_tokens"] = windows.numel()
        report |= fixed.plan(task, windows)
    return _with_tokens(task, report, source, started)


def _with_tokens(task: Task, report: dict[str, Any], source: Calibration, started: float) -> dict[str, Any]:
    """The report with what the model's own tokens take, where there is no text."""
    seconds = report.pop("seconds")
    report["calibration"] = source.report()
    if source.source == "made":
        seconds += fixed.making_seconds(task.model, source.shape[0] * source.shape[1])
        report["memory_bytes"] = max(report["memory_bytes"], fixed.making_bytes(task.model))
    report["seconds"] = round(started + seconds, 1)
    return report


def estimate(task: Task) -> dict[str, Any]:
    """What rounding to the grids asked for would read, write and hold in memory."""
    model = task.model
    chosen = [(item, model.entries[item.name]) for item in task.chosen]
    size = sum(spec_of(item, item.grid, model).nbytes for item, _ in chosen if item.grid is not None)
    dense = sum(model.entries[item.name].nbytes for item in task.items if item.grid is None)
    weights = sum(entry.numel for _, entry in chosen)
    largest = max(
        (entry.numel // (entry.shape[0] if len(entry.shape) == 3 else 1) for _, entry in chosen), default=0
    )
    adaptive = any(item.grid is not None and item.grid.dim == "ada" for item, _ in chosen)
    whole = 4 * sum(entry.numel for entry in model.entries.values()) if adaptive else 0
    return {
        "kind": "plan",
        "tensors": len(chosen),
        "reads_bytes": model.store.nbytes(),
        "writes_bytes": size + dense,
        "bits_per_weight": {"linear": round(8 * size / max(weights, 1), 4)},
        "memory_bytes": _LIBRARIES + max(min(_IN_FLIGHT, model.store.nbytes()) + 4 * largest, whole),
    }
