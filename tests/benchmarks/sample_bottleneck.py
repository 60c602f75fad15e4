"""What bntools-sample-bottleneck costs and keeps, beside full resolution and few steps of it.

usage: python tests/benchmarks/sample_bottleneck.py [MNIST_DIR] [--count 240]

Gaussian fields: error in closed form. Digits: CPU seconds, distance from full resolution of the same seeds, and with
MNIST_DIR the Frechet distance in a classifier's features, and the share of samples that it gives the class asked for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from bntools.core.datasets.labelled import read_idx
from bntools.core.diffusion.field import Clock, power_law
from bntools.core.diffusion.gaussian import GaussianField
from bntools.core.methods.image_features import classify, features
from bntools.kernels.features.frechet import floor, frechet
from bntools.tools.sample_bottleneck import Settings, build_schedule, sample
from bntools.tools.sample_bottleneck.models import ModelRequest, open_field
from bntools.tools.sample_bottleneck.plan import flops
from bntools.tools.sample_bottleneck.settings import parse_stages
from bntools.tools.sample_bottleneck.stages.exact import exactness

DIGITS = {
    "full 16": Settings("full"),
    "full 7, equal cost": Settings("full", full_steps=7),
    "spectral 1/10/3": Settings(stages=parse_stages("1@1,10@0.5,3@1")),
    "spectral 1/10/3, fresh": Settings(stages=parse_stages("1@1,10@0.5,3@1"), high="fresh"),
    "spectral 1/6/2": Settings(stages=parse_stages("1@1,6@0.5,2@1"), bounds=(1, 0.95, 0.5, 0)),
    "bottleneck 3/8/4, shifts 3/2/3": Settings(
        "bottleneck", stages=parse_stages("3@1,8@0.5,4@1"), strengths=(1, 0.8, 0.6), shifts=(3, 2, 3)
    ),
}


def gaussians() -> None:
    print(
        "Gaussian 16 x 16, 200 Heun steps a stage, down at 0.8, up at 0.5: errors in the band, above it, KL a dimension"
    )
    for beta in (2.0, 3.0):
        field = GaussianField("", (1, 16, 16), power_law((16, 16), beta, 0.25), Clock(3.0))
        for high in ("retain", "wiener", "fresh"):
            settings = Settings(
                stages=parse_stages("200@1,200@0.5,200@1"), bounds=(1, 0.8, 0.5, 0), high=high, solver="heun"
            )
            found = exactness(field, build_schedule(settings, field), settings)
            print(
                f"  beta {beta:g} {high:7s} {found['band']:.1e} {found['high']:.1e} {found['kl']:.1e}",
                flush=True,
            )


class Judge:
    """Frechet distance of samples from real digits in a classifier's features, and whether a class is seen."""

    def __init__(self, folder: Path, count: int) -> None:
        x = read_idx(next(folder.glob("t10k-images*")))
        real = features(x)
        self.real = real[:5000]
        limit = floor(real, count)
        print(f"  real digits from real digits, {limit.rows}: {limit.mean:.1f} ± {limit.se:.1f}")

    def score(self, x: Tensor, label: Tensor) -> tuple[float, float]:
        pixels = (x + 1) / 2
        right = float((classify(pixels).argmax(1) == label.numpy()).mean())
        return frechet(features(pixels), self.real), right


def digits(folder: Path | None, count: int, seed: int, guidance: float) -> None:
    opened = open_field(ModelRequest("digits:", count=count, guidance=guidance))
    assert opened.labels is not None
    judge = Judge(folder, count) if folder else None
    full, cpu = None, 1.0
    unit = opened.field.cost(opened.field.size).flops
    print("  settings, cost, CPU s, times faster, from full (same seeds), healthy, Frechet distance, right")
    for name, chosen in DIGITS.items():
        settings = Settings(**{**chosen.__dict__, "seed": seed})
        schedule = build_schedule(settings, opened.field)
        drawn = sample(opened.field, schedule, settings, count=count)
        if full is None:
            full, cpu = drawn.x, drawn.cpu
        gap = float((drawn.x - full).norm() / full.norm())
        score = "{:.2f} {:.3f}".format(*judge.score(drawn.x, opened.labels)) if judge else ""
        healthy = [each["healthy"] for each in drawn.transitions]
        cost = flops(schedule, opened.field, "euler") / unit
        print(
            f"  {name:32s} {cost:5.2f} {drawn.cpu:6.2f} {cpu / drawn.cpu:5.2f} {gap:.3f} {healthy} {score}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--only", choices=["gaussians", "digits"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only != "digits":
        gaussians()
    print("digits at 32 points a side", file=sys.stdout)
    if given.only != "gaussians":
        digits(given.folder, given.count, given.seed, given.guidance)
