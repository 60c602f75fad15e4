"""What bntools-sample-bottleneck costs and keeps, beside full resolution and few steps of it.

usage: python tests/benchmarks/sample_bottleneck.py [MNIST_DIR] [--count 240]

Gaussian fields: error in closed form. Digits: CPU seconds, distance from full resolution of the same seeds, and with
MNIST_DIR the Frechet distance in 16 principal features of a small classifier, and the share of samples that it gives
the class asked for. A classifier and features of its own, so that the figures need nothing else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bntools.core.datasets.labelled import read_idx
from bntools.core.diffusion.field import Clock, power_law
from bntools.core.diffusion.gaussian import GaussianField
from bntools.tools.sample_bottleneck import Settings, build_schedule, sample
from bntools.tools.sample_bottleneck.models import ModelRequest, open_field
from bntools.tools.sample_bottleneck.plan import flops
from bntools.tools.sample_bottleneck.settings import parse_stages
from bntools.tools.sample_bottleneck.stages.exact import exactness

DIGITS = {
    "full 16": Settings("full"),
    "full 8": Settings("full", full_steps=8),
    "full 7": Settings("full", full_steps=7),
    "full 6": Settings("full", full_steps=6),
    "full 5": Settings("full", full_steps=5),
    "spectral 1/10/3": Settings(stages=parse_stages("1@1,10@0.5,3@1")),
    "spectral 1/10/3, fresh": Settings(stages=parse_stages("1@1,10@0.5,3@1"), high="fresh"),
    "spectral 1/10/3, 0.95, 0.6": Settings(stages=parse_stages("1@1,10@0.5,3@1"), bounds=(1, 0.95, 0.6, 0)),
    "spectral 1/6/2": Settings(stages=parse_stages("1@1,6@0.5,2@1"), bounds=(1, 0.95, 0.5, 0)),
    "bottleneck 3/8/4, shifts 3/2/3": Settings(
        "bottleneck", stages=parse_stages("3@1,8@0.5,4@1"), strengths=(1, 0.8, 0.6), shifts=(3, 2, 3)
    ),
    "ralu 8/3": Settings("ralu", stages=parse_stages("8@0.5,3@1")),
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


class Classifier(nn.Module):
    """Two convolutions and 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 5, 2, 2), nn.ReLU(), nn.Flatten(),
            nn.Linear(24 * 64, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def images(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    x = read_idx(next(folder.glob(f"{split}-images*"))).astype(np.float32) / 127.5 - 1
    y = read_idx(next(folder.glob(f"{split}-labels*"))).astype(np.int64)
    return torch.from_numpy(
        np.pad(x, ((0, 0), (2, 2), (2, 2)), constant_values=-1)[:, None]
    ), torch.from_numpy(y)


def trained(x: Tensor, y: Tensor, steps: int = 600) -> Classifier:
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


class Judge:
    """Distance of samples from real digits in 16 principal features, and whether a class is seen."""

    def __init__(self, folder: Path) -> None:
        self.model = trained(*images(folder, "train"))
        self.x, y = images(folder, "t10k")
        with torch.no_grad():
            f = self.model.features(self.x)
            right = float((self.model(self.x).argmax(1) == y).float().mean())
        print(f"  classifier right on {right:.3f} of the real digits")
        self.mean = f.mean(0)
        self.axes = torch.linalg.svd(f - self.mean, full_matrices=False).Vh[:16]
        self.real = self.project(f)

    def project(self, f: Tensor) -> np.ndarray:
        return ((f - self.mean) @ self.axes.T).double().numpy()

    def distance(self, found: np.ndarray) -> float:
        from scipy.linalg import sqrtm

        a, b = np.cov(self.real.T), np.cov(found.T)
        gap = self.real.mean(0) - found.mean(0)
        return float(gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real))

    @torch.no_grad()
    def score(self, x: Tensor, label: Tensor) -> tuple[float, float]:
        right = float((self.model(x).argmax(1) == label).float().mean())
        return self.distance(self.project(self.model.features(x))), right


def digits(folder: Path | None, count: int, seed: int, guidance: float) -> None:
    opened = open_field(ModelRequest("digits:", count=count, guidance=guidance))
    assert opened.labels is not None
    judge = Judge(folder) if folder else None
    if judge:
        rows = np.random.default_rng(0).permutation(len(judge.x))[:count]
        with torch.no_grad():
            floor = judge.distance(judge.project(judge.model.features(judge.x[torch.from_numpy(rows)])))
        print(f"  real digits from real digits, {count}: {floor:.2f}")
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
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--only", choices=["gaussians", "digits"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only != "digits":
        gaussians()
    print("digits at 32 points a side", file=sys.stdout)
    if given.only != "gaussians":
        digits(given.folder, given.count, given.seed, given.guidance)
