"""What decides the samples, and the published settings by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from bntools.core.errors import usage

METHODS = ("spectral", "bottleneck", "ralu", "full")
SOLVERS = ("euler", "heun", "ab2")
HIGH_BANDS = ("retain", "wiener", "fresh")
RESIZES = ("bilinear", "bicubic", "nearest", "area", "lanczos3", "dct")


class StageWords(NamedTuple):
    """So many steps at a scale of the full resolution, as `10@0.5` says."""

    steps: int
    scale: float


@dataclass(frozen=True)
class Settings:
    """method: of METHODS. stages: steps and scales; None: the method's own. bounds: noise levels where stages meet, in
    terms of full resolution, one more than stages; None: the method's rule. full_steps: steps of full resolution.

    spectral: high, what becomes of the high band. bottleneck: strengths and shifts, one a stage; space, that of the
    strengths; resize. ralu: c, of its noise (None: the largest). delta: the signal to noise that may be missing in the
    high band at a transition upwards.
    """

    method: str = "spectral"
    stages: tuple[StageWords, ...] | None = None
    bounds: tuple[float, ...] | None = None
    full_steps: int = 16
    high: str = "retain"
    strengths: tuple[float, ...] | None = None
    shifts: tuple[float, ...] | None = None
    space: str = "sigma"
    resize: str = "bilinear"
    c: float | None = None
    solver: str = "euler"
    delta: float = 0.05
    seed: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("method", self.method, METHODS), ("solver", self.solver, SOLVERS), ("hf", self.high, HIGH_BANDS),
            ("resize", self.resize, RESIZES), ("strength-space", self.space, ("sigma", "grid")),
        ):  # fmt: skip
            if value not in known:
                raise usage(f"--{name} {value} is none of {', '.join(known)}")
        if self.method == "full" and self.stages and any(stage.scale != 1 for stage in self.stages):
            raise usage("--method full has stages at full resolution only", "--method spectral")
        count = len(self.stages) if self.stages else 3
        for name, given, wanted in (
            ("sigmas", self.bounds, count + 1), ("strengths", self.strengths, count), ("shifts", self.shifts, count),
        ):  # fmt: skip
            if given is not None and len(given) != wanted:
                raise usage(f"--{name} has {len(given)} numbers, not {wanted}", f"there are {count} stages")
        if self.bounds and not all(a > b for a, b in zip(self.bounds, self.bounds[1:], strict=False)):
            raise usage("--sigmas do not fall", "--sigmas 1:.95:.6:0")
        if self.bounds and (self.bounds[0] > 1 or self.bounds[-1] < 0):
            raise usage("--sigmas leave 0..1", "--sigmas 1:.95:.6:0")
        if self.strengths and not all(0 < s <= 1 for s in self.strengths):
            raise usage("--strengths are not in (0, 1]", "--strengths 1:.8:.6")


def parse_stages(text: str) -> tuple[StageWords, ...]:
    """`1@1,10@0.5,3@1`: steps @ scale, in order. Raises BnError (exit 2)."""
    stages = []
    for word in text.split(","):
        steps, at, scale = word.partition("@")
        try:
            stage = StageWords(int(steps), float(scale) if at else 1.0)
        except ValueError:
            stage = StageWords(0, 0.0)
        if stage.steps < 1 or not 0 < stage.scale <= 1:
            raise usage(f"--stages {text}: {word or 'nothing'} is not STEPS@SCALE", "--stages 1@1,10@0.5,3@1")
        stages.append(stage)
    if stages[-1].scale != 1:
        raise usage(f"--stages {text} does not end at full resolution", f"--stages {text},3@1")
    return tuple(stages)


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """`1:.95:.6:0`. Raises BnError (exit 2)."""
    if text is None:
        return None
    try:
        numbers = tuple(float(word) for word in text.split(":"))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise usage(f"{option} {text} is no list of numbers", f"{option} 1:.8:.6")
    return numbers


class Preset(NamedTuple):
    """Published settings of the bottleneck method. source: where each number is from."""

    steps: tuple[int, int, int]
    strengths: tuple[float, float, float]
    shifts: tuple[float, float, float]
    source: str

    @property
    def stages(self) -> tuple[StageWords, ...]:
        return tuple(StageWords(n, scale) for n, scale in zip(self.steps, (1.0, 0.5, 1.0), strict=True))


_DERIVED = "steps from the comparison in RALU's paper; strengths and shifts derived from flux-paper"
_FLUX, _SD3 = (9.0, 6.0, 9.0), (8.5, 5.7, 8.5)  # SD3's own shift is 3 where FLUX has 3.16 at 1024 x 1024
PRESETS = {
    "flux-paper": Preset(
        (4, 13, 8), (1, 0.8, 0.6), _FLUX, "a re-implementation of the paper's FLUX.1 setting"
    ),
    "flux-5x": Preset((4, 12, 5), (1, 0.8, 0.6), _FLUX, _DERIVED),
    "flux-7x": Preset((3, 8, 4), (1, 0.8, 0.6), _FLUX, _DERIVED),
    "sd3-2x": Preset((6, 18, 7), (1, 0.8, 0.6), _SD3, _DERIVED),
    "sd3-3x": Preset((4, 12, 4), (1, 0.8, 0.6), _SD3, _DERIVED),
}
