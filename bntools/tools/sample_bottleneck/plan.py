"""What a schedule costs before anything runs, and which schedule a wanted speed-up buys."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.diffusion.field import Field
from bntools.core.errors import usage
from bntools.core.methods.devices import Device
from bntools.kernels.spectral.cosine import in_band, ratio
from bntools.kernels.spectral.handoff import Size, cleaner
from bntools.tools.sample_bottleneck.settings import Settings, StageWords
from bntools.tools.sample_bottleneck.stages.schedule import Schedule, build_schedule, transition_level
from bntools.tools.sample_bottleneck.stages.solvers import evaluations

Floats = NDArray[np.float64]
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_RATES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_POINTS = 256
"""Coefficients of each band that the solver follows, evenly spaced in rank."""


def flops(schedule: Schedule, field: Field, solver: str) -> float:
    """Of one sample."""
    return sum(evaluations(solver, stage.times) * field.cost(stage.size).flops for stage in schedule.stages)


def plan(
    schedule: Schedule, field: Field, settings: Settings, *, device: Device, dtype: str, batch: int
) -> dict[str, Any]:
    """The report of --plan: one row a stage, totals, full resolution beside it, warnings. Seconds are one sample's."""
    row = functools.partial(_row, field, device=device, dtype=dtype, batch=batch)
    rows = [
        row(stage.size, stage.scale, evaluations(settings.solver, stage.times)) for stage in schedule.stages
    ]
    full = row(field.size, 1.0, settings.full_steps)
    total = {key: sum(row[key] for row in rows) for key in ("nfe", "flops", "seconds")}
    return {
        "kind": "plan", "model": field.label, "class": field.kind, "method": schedule.method,
        "device": device.name, "dtype": dtype, "batch": batch, "stages": rows, "total": total, "full": full,
        "speedup": {"flops": full["flops"] / total["flops"], "seconds": full["seconds"] / total["seconds"]},
        "bounds": [stage.full[0] for stage in schedule.stages] + [schedule.stages[-1].full[-1]],
        "warnings": warnings(schedule, field, settings),
    }  # fmt: skip


def _row(
    field: Field, size: Size, scale: float, nfe: int, *, device: Device, dtype: str, batch: int
) -> dict[str, Any]:
    """Seconds by the slower of arithmetic and memory: weights once a batch, attention's least traffic."""
    cost = field.cost(size)
    width = _BYTES[dtype]
    moved = width * (cost.weights / batch + cost.moved)
    seconds = max(cost.flops / device.rate(_RATES[dtype])[0], moved / device.bandwidth)
    return {
        "scale": scale, "size": list(size), "tokens": cost.tokens, "nfe": nfe, "flops": nfe * cost.flops,
        "attention_share": cost.attention / cost.flops, "io_bytes": nfe * moved, "seconds": nfe * seconds,
    }  # fmt: skip


def warnings(schedule: Schedule, field: Field, settings: Settings) -> list[dict[str, str]]:
    """Stages below what the model was trained at; transitions upwards before the signal that they lack is small."""
    named = []
    smallest = min(min(stage.size) for stage in schedule.stages)
    if field.trained and smallest < field.trained[0]:
        text = f"a stage at {smallest} points, below {field.trained[0]}, the least the model was trained at"
        named.append({"name": "below-training", "text": text})
    if not field.trained and smallest < min(field.size) / 2:
        text = "a stage at under half of full resolution: models are seldom trained there"
        named.append({"name": "below-training", "text": text})
    for before, after in itertools.pairwise(schedule.stages):
        if schedule.method != "spectral" or after.size[0] <= before.size[0]:
            continue
        least = transition_level(field.data_spectrum(), after.size, before.size, settings.delta)
        if after.full[0] < least - 0.005:
            text = f"upwards at {after.full[0]:.2f}: the high band misses over {settings.delta:g} of signal to noise"
            named.append({"name": "late-transition", "text": text})
    return named


def timed_costs(field: Field, scales: list[float], batch: int) -> dict[float, float]:
    """Seconds of one velocity a sample at each scale, the better of two after a first call."""
    costs = {}
    for scale in scales:
        x = torch.zeros(batch, *field.shape[:-2], *field.sized(scale))
        field.boundary()
        took = []
        for _ in range(3):
            start = time.perf_counter()
            field.velocity(x, 0.5, slice(0, batch))
            took.append(time.perf_counter() - start)
        costs[scale] = min(took[1:]) / batch
    field.boundary()
    return costs


def solve(field: Field, settings: Settings, target: float, *, low: float, cost: float) -> Settings:
    """The schedule of high, low, high that is `target` times cheaper than full resolution, with the least error.

    cost: of a velocity at scale `low` in units of full resolution's. Error: squared distance of Gaussian data with the
    model's spectrum from what the steps make of them, followed in closed form. Raises BnError (exit 2) where the target
    leaves no steps.
    """
    budget = settings.full_steps / target
    best: tuple[float, Settings] | None = None
    least = transition_level(field.data_spectrum(), field.size, field.sized(low), settings.delta)
    for first, last in itertools.product((0, 1, 2), range(1, settings.full_steps)):
        middle = math.floor((budget - first - last) / cost + 1e-9)
        if middle < 1:
            continue
        words = (StageWords(first, 1.0),) * (first > 0) + (
            StageWords(min(middle, 4 * settings.full_steps), low),
            StageWords(last, 1.0),
        )
        for up in (least, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            bounds = (field.clock.start, *((0.95,) if first else ()), up, 0.0)
            if up >= bounds[-3]:
                continue
            tried = dataclasses.replace(settings, method="spectral", stages=words, bounds=bounds)
            error = predicted_error(build_schedule(tried, field), field)
            if best is None or error < best[0]:
                best = error, tried
    if best is None:
        raise usage(
            f"--target-speedup {target:g} of {settings.full_steps} steps leaves {budget:.2f} steps",
            "a smaller target, or more --steps",
        )
    return best[1]


def predicted_error(schedule: Schedule, field: Field) -> float:
    """Sum of (sd - sqrt(S))^2 over the sum of S, for zero-mean Gaussian data under Euler's steps and retained bands."""
    variance = field.data_spectrum().variance.mean(0)
    smallest = min((stage.size for stage in schedule.stages), key=lambda size: size[0])
    inside = in_band(field.size, smallest)
    total, error = 0.0, 0.0
    for always, mask in ((True, inside), (False, ~inside)):
        values = np.sort(variance[mask].numpy())
        if not len(values):
            continue
        s = values[np.linspace(0, len(values) - 1, min(_POINTS, len(values))).astype(int)]
        gain = np.ones_like(s)
        for stage in schedule.stages:
            if always or stage.size == field.size:
                gain *= _stage_gain(stage.full, s, ratio(field.size, stage.size))
            else:
                gain *= stage.full[-1] / stage.full[0]
        weight = len(values) / len(s)
        error += weight * float(((np.abs(gain) - np.sqrt(s)) ** 2).sum())
        total += weight * float(s.sum())
    return error / total


def _stage_gain(full: tuple[float, ...], s: Floats, rho: float) -> Floats:
    """What Euler's steps make of coefficients, in units of full resolution's, at a size rho smaller."""
    times, low = [cleaner(t, rho) for t in full], s / rho**2
    gain = np.ones_like(s)
    for t, after in itertools.pairwise(times):
        slope = (t - (1 - t) * low) / ((1 - t) ** 2 * low + t**2)
        gain *= 1 + (after - t) * slope
    kappa = [rho / (1 + (rho - 1) * t) for t in (times[0], times[-1])]
    return gain * kappa[1] / kappa[0]


def equal_steps(cost: float, solver: str) -> int:
    """Steps of full resolution that cost as much, rounded up: the doubt goes to the baseline."""
    return max(1, math.ceil((cost + (solver == "heun")) / (2 if solver == "heun" else 1) - 1e-6))
