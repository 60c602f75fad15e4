"""One run: draw, compare, report; prints nothing."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from torch import Tensor

from bntools.core.diffusion.field import Field
from bntools.core.diffusion.gaussian import GaussianField
from bntools.core.progress import Progress, no_progress
from bntools.tools.sample_bottleneck import plan
from bntools.tools.sample_bottleneck.settings import Settings
from bntools.tools.sample_bottleneck.stages.exact import EXACT_POINTS, exactness
from bntools.tools.sample_bottleneck.stages.sampler import Samples, Source, sample
from bntools.tools.sample_bottleneck.stages.schedule import Schedule, build_schedule


class Drawn(NamedTuple):
    """tensors: x0, and with a comparison full and few; report: of bntools-sample-bottleneck(1)."""

    tensors: dict[str, Tensor]
    report: dict[str, Any]


def run(
    field: Field, settings: Settings, *, count: int, compare: bool = False, source: Source | None = None,
    progress: Progress = no_progress,
) -> Drawn:  # fmt: skip
    """Draw `count` samples; compare: also full resolution, and full resolution in as many steps as the run costs."""
    schedules = {"x0": build_schedule(settings, field)}
    cost = plan.flops(schedules["x0"], field, settings.solver) / field.cost(field.size).flops
    if compare:
        full = dataclasses.replace(settings, method="full", stages=None, bounds=None)
        few = dataclasses.replace(full, full_steps=plan.equal_steps(cost, settings.solver))
        schedules |= {"full": build_schedule(full, field), "few": build_schedule(few, field)}
    runs: dict[str, Samples] = {}
    steps = sum(stage.steps for schedule in schedules.values() for stage in schedule.stages)
    with progress("steps", steps * count) as advance:
        for name, schedule in schedules.items():
            runs[name] = sample(field, schedule, settings, count=count, source=source, advance=advance)
    report = _report(field, settings, schedules["x0"], runs["x0"], cost)
    if compare:
        report["compare"] = [
            _compared(name, schedules[name], runs, field, settings) for name in ("full", "few", "x0")
        ]
        report["speedup"] = {
            "flops": report["speedup"]["flops"], "cpu": runs["full"].cpu / max(runs["x0"].cpu, 1e-9),
            "wall": runs["full"].wall / max(runs["x0"].wall, 1e-9),
        }  # fmt: skip
    if isinstance(field, GaussianField) and math.prod(field.shape) <= EXACT_POINTS:
        report["exact"] = exactness(field, schedules["x0"], settings)
    return Drawn({name: each.x for name, each in runs.items()}, report)


def _report(
    field: Field, settings: Settings, schedule: Schedule, drawn: Samples, cost: float
) -> dict[str, Any]:
    nfe = sum(stage["nfe"] for stage in drawn.stages)
    stages = [
        {
            **entry,
            "tokens": field.cost(stage.size).tokens,
            "flops": entry["nfe"] * field.cost(stage.size).flops,
        }
        for entry, stage in zip(drawn.stages, schedule.stages, strict=True)
    ]
    return {
        "kind": "sample-bottleneck", "model": field.label, "class": field.kind, "method": settings.method,
        "seed": settings.seed, "count": len(drawn.x), "shape": list(field.shape), "solver": settings.solver,
        "stages": stages, "transitions": drawn.transitions,
        "bounds": [stage.full[0] for stage in schedule.stages] + [schedule.stages[-1].full[-1]],
        "totals": {"nfe": nfe, "flops": sum(stage["flops"] for stage in stages), "cost": cost,
                   "wall": drawn.wall, "cpu": drawn.cpu},
        "baseline": {"steps": settings.full_steps, "flops": settings.full_steps * field.cost(field.size).flops},
        "speedup": {"flops": _full_cost(settings) / cost},
        "warnings": _warnings(schedule, field, settings, drawn),
    }  # fmt: skip


def _full_cost(settings: Settings) -> float:
    return 2 * settings.full_steps - 1 if settings.solver == "heun" else settings.full_steps


def _warnings(schedule: Schedule, field: Field, settings: Settings, drawn: Samples) -> list[dict[str, str]]:
    warnings = plan.warnings(schedule, field, settings)
    for index, each in enumerate(drawn.transitions):
        if each["healthy"] is False:
            text = (
                f"after transition {index + 1} the mean square is {each['moment_after']:.3g}, where noise level "
                f"{each['t_after']:.3g} asks for {each['moment_expected']:.3g}"
            )
            warnings.append({"name": "unhealthy-transition", "text": text})
    return warnings


_NAMES = {"full": "full", "few": "full, equal cost"}


def _compared(
    tensor: str, schedule: Schedule, runs: dict[str, Samples], field: Field, settings: Settings
) -> dict[str, Any]:
    """A row: cost in velocities of full resolution, seconds, distance from full resolution of the same seed."""
    drawn, full = runs[tensor], runs["full"].x
    unit = field.cost(field.size).flops
    spread = float((full - full.mean(0)).norm()) or 1.0
    gap = float((drawn.x - full).norm())
    return {
        "name": _NAMES.get(tensor, settings.method), "tensor": tensor,
        "steps": [stage.steps for stage in schedule.stages],
        "nfe": sum(stage["nfe"] for stage in drawn.stages),
        "cost": plan.flops(schedule, field, settings.solver) / unit, "wall": drawn.wall, "cpu": drawn.cpu,
        "speedup": runs["full"].cpu / max(drawn.cpu, 1e-9),
        "distance": gap / max(float(full.norm()), 1e-12), "distance_centred": gap / spread,
    }  # fmt: skip
