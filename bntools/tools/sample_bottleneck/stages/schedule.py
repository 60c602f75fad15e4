"""From settings to noise levels: the stages of each method at the sizes of a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from bntools.core.diffusion.field import Clock, Field
from bntools.core.errors import usage
from bntools.kernels.spectral.cosine import in_band, ratio
from bntools.kernels.spectral.handoff import Size, Spectrum, cleaner
from bntools.tools.sample_bottleneck.settings import PRESETS, Settings, StageWords

DOWN = 0.95
"""Noise level of a transition downwards: almost nothing but noise, so that almost no signal waits in the high band."""
DEFAULT = (StageWords(1, 1.0), StageWords(10, 0.5), StageWords(3, 1.0))


class Stage(NamedTuple):
    """Noise levels at the stage's own resolution, falling; one more than steps. full: the same at full resolution's."""

    scale: float
    size: Size
    times: tuple[float, ...]
    full: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.times) - 1


class Schedule(NamedTuple):
    """joins: how each stage passes on to the next, `band`, `renoise` or `blocks`; one fewer than stages."""

    method: str
    stages: tuple[Stage, ...]
    joins: tuple[str, ...]


def build_schedule(settings: Settings, field: Field) -> Schedule:
    """Raises BnError (exit 2) for scales that do not divide or that a method cannot take."""
    return _METHODS[settings.method](settings, field)


def transition_level(spectrum: Spectrum, high: Size, low: Size, delta: float) -> float:
    """The lowest level at which no coefficient above the band of `low` has signal over noise of more than delta.

    (1 - t)^2 S <= delta t^2, so t = sqrt(S) / (sqrt(S) + sqrt(delta)). Of the largest S above the band; means count.
    """
    power = (spectrum.variance + spectrum.mean**2).mean(0)[: high[0], : high[1]]
    above = power[~in_band(high, low)]
    root = float(above.max()) ** 0.5 if above.numel() else 0.0
    return root / (root + delta**0.5)


def even_levels(clock: Clock, first: float, last: float, steps: int) -> tuple[float, ...]:
    """Levels from first to last, evenly spaced on the model's clock."""
    start, end = clock.position(first), clock.position(last)
    inner = [clock.time(start + (end - start) * i / steps) for i in range(1, steps)]
    return (first, *inner, last)


def _full(settings: Settings, field: Field) -> Schedule:
    steps = sum(stage.steps for stage in settings.stages) if settings.stages else settings.full_steps
    first, last = (settings.bounds[0], settings.bounds[-1]) if settings.bounds else (field.clock.start, 0.0)
    levels = even_levels(field.clock, min(first, field.clock.start), last, steps)
    return Schedule("full", (Stage(1.0, field.size, levels, levels),), ())


def _spectral(settings: Settings, field: Field) -> Schedule:
    words = settings.stages or DEFAULT
    bounds = settings.bounds or default_bounds(words, field, settings.delta)
    stages = []
    for (steps, scale), first, last in zip(words, bounds, bounds[1:], strict=False):
        size = field.sized(scale)
        levels = even_levels(field.clock, min(first, field.clock.start), last, steps)
        rho = ratio(field.size, size)
        stages.append(Stage(scale, size, tuple(cleaner(t, rho) for t in levels), levels))
    return Schedule("spectral", tuple(stages), ("band",) * (len(stages) - 1))


def default_bounds(words: tuple[StageWords, ...], field: Field, delta: float) -> tuple[float, ...]:
    """Downwards at 0.95, evenly before it if there are several; upwards by the spectrum."""
    levels = [field.clock.start]
    for before, after in itertools.pairwise(words):
        if after.scale < before.scale:
            level = DOWN
        elif after.scale == before.scale:
            level = 0.5 * levels[-1]
        else:
            level = transition_level(
                field.data_spectrum(), field.sized(after.scale), field.sized(before.scale), delta
            )
        levels.append(min(level, 0.98 * levels[-1]))
    return (*levels, 0.0)


def _bottleneck(settings: Settings, field: Field) -> Schedule:
    """Every stage is a chain of its own from its strength to clean: the paper's, by the re-implementation's reading."""
    preset = PRESETS["flux-paper"]
    words = settings.stages or preset.stages
    if len(words) != 3 and not (settings.strengths and settings.shifts):
        raise usage(
            f"{len(words)} stages without --strengths and --shifts", "--strengths 1:.8:.6 --shifts 9:6:9"
        )
    strengths, shifts = settings.strengths or preset.strengths, settings.shifts or preset.shifts
    stages = []
    for (steps, scale), strength, shift in zip(words, strengths, shifts, strict=True):
        clock = Clock(shift)
        first = clock.position(strength) if settings.space == "sigma" else strength
        levels = tuple(min(clock.time(first * (1 - i / steps)), field.clock.start) for i in range(steps + 1))
        stages.append(Stage(scale, field.sized(scale), levels, levels))
    return Schedule("bottleneck", tuple(stages), ("renoise",) * (len(stages) - 1))


def _ralu(settings: Settings, field: Field) -> Schedule:
    """Low, then high: repeated points and noise that completes theirs. The mixed stage, for edges, is left out."""
    words = settings.stages or (StageWords(8, 0.5), StageWords(4, 1.0))
    scales = [word.scale for word in words]
    if scales != sorted(scales):
        raise usage("--method ralu only goes upwards", "--stages 8@0.5,4@1")
    bounds = settings.bounds or (field.clock.start, *([0.7] * (len(words) - 1)), 0.0)
    if len(bounds) != len(words) + 1:
        raise usage(f"--sigmas has {len(bounds)} numbers, not {len(words) + 1}")
    stages: list[Stage] = []
    first = field.clock.start
    for index, (steps, scale) in enumerate(words):
        size = field.sized(scale)
        levels = even_levels(field.clock, first, min(bounds[index + 1], 0.98 * first), steps)
        stages.append(Stage(scale, size, levels, levels))
        if index + 1 < len(words):
            block = _block(size, field.sized(words[index + 1].scale))
            first = raised_level(levels[-1], settings.c, block[0] * block[1])
    return Schedule("ralu", tuple(stages), ("blocks",) * (len(stages) - 1))


def _block(low: Size, high: Size) -> Size:
    """Points of the high size a point of the low one. Raises BnError (exit 2) where that is no whole number."""
    if high[0] % low[0] or high[1] % low[1]:
        raise usage(f"--method ralu: {high} is no multiple of {low}", "scales such as 0.5 and 1")
    return high[0] // low[0], high[1] // low[1]


def raised_level(t: float, c: float | None, points: int) -> float:
    """RALU's next level: with e = 1 - t the share of data, d = t / sqrt(c), it is d / (d + e)."""
    d = t / (c or 1 / points) ** 0.5
    return d / (d + 1 - t)


_METHODS: dict[str, Callable[[Settings, Field], Schedule]] = {
    "full": _full, "spectral": _spectral, "bottleneck": _bottleneck, "ralu": _ralu,
}  # fmt: skip
