"""Intrinsic dimension beside scikit-dimension: error on its 24 benchmark manifolds, seconds at 100,000 x 20.

Error is the mean of |estimate / truth - 1| over the manifolds, of `--points N` points (1000) and `--seeds` draws (2).
`--full` adds the estimators of scikit-dimension that take minutes (DANCo, TLE, MADA). CPU seconds, one thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import skdim
import torch

from bntools.tools.data_dim.dimension import Settings, data_dimension

QUICK = ("TwoNN", "GRIDE", "MLE", "CorrInt", "lPCA", "MOM")
SLOW = ("TLE", "MADA", "DANCo")


def ours(points: np.ndarray, queries: int = 5000) -> float:
    """The default estimate."""
    settings = Settings(estimators=("calibrated",), queries=queries, threads=1)
    return data_dimension(points, settings)["dimension"]["value"]


def theirs(name: str) -> Callable[[np.ndarray], float]:
    return lambda points: float(getattr(skdim.id, name)().fit(points).dimension_)


def errors(points: int, seeds: int, names: tuple[str, ...]) -> None:
    """Mean relative error of each estimator, all on the same points."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        bench = skdim.datasets.BenchmarkManifolds(random_state=seed)
        truth: dict[str, Any] = bench.truth["Intrinsic Dimension"].to_dict()
        for manifold, cloud in bench.generate("all", n=points).items():
            for name in ("bntools", *names):
                value = ours(cloud) if name == "bntools" else theirs(name)(cloud)
                found.setdefault(name, []).append(abs(value / truth[manifold] - 1))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    best = min(value for name, value in means.items() if name != "bntools")
    print(f"mean relative error, 24 manifolds x {seeds} draws of {points} points")
    for name, value in sorted(means.items(), key=lambda pair: pair[1]):
        print(f"  {name:10s} {value:.4f}   {value / best:.2f} of the best of scikit-dimension")


def speed(count: int = 100_000, width: int = 20) -> None:
    """CPU seconds on one Gaussian cloud; ours at the default number of queries and at all points."""
    points = np.random.default_rng(0).normal(size=(count, width))
    ours(points[:2000])  # compile
    print(f"CPU seconds, {count} points x {width}")
    jobs = {
        "bntools": ours,
        "bntools, all points": lambda x: ours(x, count),
        "scikit-dimension TwoNN": theirs("TwoNN"),
    }
    for name, job in jobs.items():
        began = time.process_time()
        value = job(points)
        print(f"  {name:24s} {time.process_time() - began:8.1f}   estimate {value:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    errors(given.points, given.seeds, QUICK + (SLOW if given.full else ()))
    speed()


if __name__ == "__main__":
    main()
