"""Intrinsic dimension beside scikit-dimension: error on its 24 benchmark manifolds, seconds at 100,000 x 20.

Error is the mean of |estimate / truth - 1| over the manifolds, of `--points N,N,...` points (1000) and `--seeds` draws
(2) from number `--first` on. `--full` adds the slower estimators of scikit-dimension (DANCo, TLE, MADA, MiND_ML); ESS
is left out, which takes hours in 96 dimensions. Also one million points. CPU seconds, one thread.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import skdim
import torch

from bntools.tools.data_dim.dimension import Settings, data_dimension

QUICK = ("TwoNN", "GRIDE", "MLE", "CorrInt", "lPCA", "MOM")
SLOW = ("TLE", "MADA", "MiND_ML", "DANCo")


def ours(points: np.ndarray, queries: int = 5000) -> float:
    """The default estimate."""
    settings = Settings(estimators=("calibrated",), queries=queries, threads=1)
    return data_dimension(points, settings)["dimension"]["value"]


def theirs(name: str) -> Callable[[np.ndarray], float]:
    return lambda points: float(getattr(skdim.id, name)().fit(points).dimension_)


def errors(points: int, seeds: range, names: tuple[str, ...]) -> None:
    """Mean relative error of each estimator, all on the same points."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        bench = skdim.datasets.BenchmarkManifolds(random_state=seed)
        truth: dict[str, Any] = bench.truth["Intrinsic Dimension"].to_dict()
        for manifold, cloud in bench.generate("all", n=points).items():
            for name in ("bntools", *names):
                value = ours(cloud) if name == "bntools" else theirs(name)(cloud)
                found.setdefault(name, []).append(abs(value / truth[manifold] - 1))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    best = min(value for name, value in means.items() if name != "bntools")
    print(f"mean relative error, 24 manifolds x {len(seeds)} draws of {points} points")
    for name, value in sorted(means.items(), key=lambda pair: pair[1]):
        print(f"  {name:10s} {value:.4f}   {value / best:.2f} of the best of scikit-dimension")


def speed(count: int = 100_000, width: int = 20) -> None:
    """CPU seconds on one Gaussian cloud; ours at the default number of queries and at all points."""
    points = np.random.default_rng(0).normal(size=(count, width))
    ours(points[:2000])  # compile
    theirs("TwoNN")(points[:2000])
    print(f"CPU seconds, {count:,} points x {width}")
    jobs = {
        "bntools": ours,
        "bntools, all points": lambda x: ours(x, count),
        "scikit-dimension TwoNN": theirs("TwoNN"),
    }
    seconds: dict[str, float] = {}
    for name, job in jobs.items():
        began = time.process_time()
        value = job(points)
        seconds[name] = time.process_time() - began
        print(f"  {name:24s} {seconds[name]:8.1f}   estimate {value:.2f}", flush=True)
    last = seconds["scikit-dimension TwoNN"]
    print(f"  TwoNN / bntools {last / seconds['bntools']:.1f}, at all points "
          f"{last / seconds['bntools, all points']:.1f}")  # fmt: skip


def million(count: int = 1_000_000, width: int = 20) -> None:
    """Many points: CPU seconds, memory beyond the points, the interval."""
    points = np.random.default_rng(0).normal(size=(count, width))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    report = data_dimension(points, Settings(estimators=("calibrated", "mle"), threads=1))
    seconds, grown = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for name, found in report["estimators"].items():
        print(
            f"{count:,} points x {width}, {name}: {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
        )
    print(f"  {seconds:.1f} s of CPU, {grown / 1024:.0f} MB beyond the points' {points.nbytes >> 20} MB, "
          f"{report['n_queries']:,} neighbourhoods")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", default="1000")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    million()
    for points in map(int, given.points.split(",")):
        errors(points, range(given.first, given.first + given.seeds), QUICK + (SLOW if given.full else ()))
    speed()


if __name__ == "__main__":
    main()
