"""The loop: batches of samples through all stages, with a record of every stage and transition."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as default_field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bntools.core.diffusion.field import Field
from bntools.core.errors import bad_input
from bntools.core.progress import Step, no_step
from bntools.kernels.counter_random import normals
from bntools.tools.sample_bottleneck.settings import Settings
from bntools.tools.sample_bottleneck.stages.schedule import Schedule, Stage
from bntools.tools.sample_bottleneck.stages.solvers import SOLVERS, evaluations
from bntools.tools.sample_bottleneck.stages.transitions import JOINS, Passage, begin

TOKENS = 4096
"""Tokens of the full resolution a batch, where --batch does not say: larger ones gain nothing on a CPU."""

Source = Callable[[int, slice, tuple[int, ...]], Tensor]
"""Noise of a stream for rows of the run, [rows, *shape]: the same for a sample whatever the batch."""


class Samples(NamedTuple):
    """x [N, C, (F,) H, W] and what the run was: wall and CPU seconds of each stage, moments at each transition."""

    x: Tensor
    stages: list[dict[str, Any]]
    transitions: list[dict[str, Any]]

    @property
    def wall(self) -> float:
        return sum(stage["wall"] for stage in self.stages) + sum(each["wall"] for each in self.transitions)

    @property
    def cpu(self) -> float:
        return sum(stage["cpu"] for stage in self.stages) + sum(each["cpu"] for each in self.transitions)


@dataclass
class Ledger:
    """Sums over batches: seconds and second moments, one entry a stage or a transition."""

    stages: list[dict[str, float]]
    transitions: list[dict[str, float]]
    moved: list[float] = default_field(default_factory=list)

    @staticmethod
    def empty(stages: int) -> Ledger:
        return Ledger([_zeros() for _ in range(stages)], [_zeros() for _ in range(stages - 1)])


def _zeros() -> dict[str, float]:
    return {"wall": 0.0, "cpu": 0.0, "before": 0.0, "after": 0.0}


class _Watch:
    """Adds the time between start and stop to an entry."""

    def __init__(self, entry: dict[str, float]) -> None:
        self.entry = entry

    def __enter__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def __exit__(self, *exc: object) -> None:
        self.entry["wall"] += time.perf_counter() - self.start[0]
        self.entry["cpu"] += time.process_time() - self.start[1]


def seeded(seed: int) -> Source:
    """Noise as a function of seed, stream, sample and place."""

    def draw(stream: int, rows: slice, shape: tuple[int, ...]) -> Tensor:
        each = 1
        for n in shape:
            each *= n
        values = normals(seed, stream, rows.start * each, (rows.stop - rows.start) * each)
        return torch.from_numpy(values).reshape(-1, *shape)

    return draw


def sample(
    field: Field, schedule: Schedule, settings: Settings, *, count: int, source: Source | None = None,
    advance: Step = no_step,
) -> Samples:  # fmt: skip
    """Draw `count` samples. The same seed gives the same samples in any batch, up to rounding.

    source: noise, by default of the settings' seed. advance: called with every step's share of samples.
    Raises BnError (exit 3) where a number is not finite, naming the step.
    """
    noise = source or seeded(settings.seed)
    tokens = max(field.cost(field.size).tokens, 1)
    size = settings.batch or max(1, TOKENS // tokens)
    ledger, parts = Ledger.empty(len(schedule.stages)), []
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        parts.append(
            _trajectory(field, schedule, settings, rows=rows, noise=noise, ledger=ledger, advance=advance)
        )
    x = torch.cat(parts) if parts else torch.zeros(0, *field.shape)
    return Samples(x, *_records(schedule, settings, ledger, x))


def _trajectory(
    field: Field, schedule: Schedule, settings: Settings, *, rows: slice, noise: Source, ledger: Ledger,
    advance: Step,
) -> Tensor:  # fmt: skip
    """One batch through all stages."""
    passage = Passage(settings, field, lambda stream, shape: noise(stream, rows, shape))
    x = begin(passage, noise(0, rows, field.shape), schedule.stages)
    share = rows.stop - rows.start
    for index, stage in enumerate(schedule.stages):
        field.boundary()
        with _Watch(ledger.stages[index]):
            x = SOLVERS[settings.solver](
                lambda x, t: field.velocity(x, t, rows), x, stage.times, _checked(index, share, advance)
            )
        if index + 1 < len(schedule.stages):
            entry = ledger.transitions[index]
            entry["before"] += _moment(x) * share
            with _Watch(entry):
                x = JOINS[schedule.joins[index]](passage, x, stage, list(schedule.stages[index + 1 :]))
            entry["after"] += _moment(x) * share
    return x


def _checked(stage: int, share: int, advance: Step) -> Callable[[Tensor, int, float], None]:
    def watch(x: Tensor, step: int, level: float) -> None:
        if not torch.isfinite(x).all():
            what = f"NaN or infinity after step {step} of stage {stage + 1}, at noise level {level:.3g}"
            raise bad_input(what, "another --dtype, or more steps")
        advance(share)

    return watch


def _moment(x: Tensor) -> float:
    return float((x.double() ** 2).mean())


def _records(
    schedule: Schedule, settings: Settings, ledger: Ledger, x: Tensor
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    stages = [
        {
            "scale": stage.scale, "size": list(stage.size), "t_start": stage.times[0], "t_end": stage.times[-1],
            "sigmas": list(stage.times), "nfe": evaluations(settings.solver, stage.times),
            "wall": entry["wall"], "cpu": entry["cpu"],
        }
        for stage, entry in zip(schedule.stages, ledger.stages, strict=True)
    ]  # fmt: skip
    pairs = zip(schedule.stages, schedule.stages[1:], ledger.transitions, schedule.joins, strict=False)
    return stages, [_transition(before, after, entry, join, x) for before, after, entry, join in pairs]


def _transition(before: Stage, after: Stage, entry: dict[str, float], join: str, x: Tensor) -> dict[str, Any]:
    from bntools.tools.sample_bottleneck.stages.health import health

    count = max(len(x), 1)
    return {
        "kind": join, "t_before": before.times[-1], "t_after": after.times[0],
        "moment_before": entry["before"] / count, "wall": entry["wall"], "cpu": entry["cpu"],
        **health(x, after, entry["after"] / count),
    }  # fmt: skip
