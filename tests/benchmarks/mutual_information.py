"""Mutual information: error on 40 tasks, coverage of intervals, and CPU seconds beside scikit-learn and ennemi.

Every number that bntools-mi(1) states. `--rows N` (10,000), `--draws N` (1) of the tasks, `--seeds N` (20) of the
channels, both from `--first-seed N` on (1000: draws that no rule was chosen on). `--only` one part; `critic` runs
the spirals with --critic. ennemi is timed where it is installed. One thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable

import numpy as np
from sklearn.feature_selection import mutual_info_regression

from bntools.core.information.copula import student_excess
from bntools.core.information.estimate import mutual_information
from bntools.core.information.estimators import Estimation
from bntools.kernels.information.nearest_neighbour import digamma, kraskov
from bntools.tools.mi.bench import bench
from bntools.tools.mi.tasks import student, tasks

Channel = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def channels() -> dict[str, tuple[float, Channel]]:
    """Truth and draw of channels known in closed form."""
    weights = np.random.default_rng(0).standard_normal((8, 16)) / 4
    found: dict[str, tuple[float, Channel]] = {}

    def normal(r: float) -> Channel:
        return lambda n, g: (x := g.standard_normal(n), r * x + math.sqrt(1 - r * r) * g.standard_normal(n))

    def uniform(e: float) -> Channel:
        return lambda n, g: (x := g.random(n), x + g.uniform(-e, e, n))

    def gamma(a: float) -> Channel:
        return lambda n, g: (g.exponential(1 / (y := g.gamma(a, 1, n))), y)

    def steps(m: int) -> Channel:
        return lambda n, g: ((x := g.integers(0, m, n)), x + 2 * g.random(n))

    def signs(mean: float) -> Channel:
        return lambda n, g: ((2 * (y := g.integers(0, 2, n)) - 1) * mean + g.standard_normal(n), y)

    def labels(share: float) -> Channel:
        def draw(n: int, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            y = g.integers(0, 10, n)
            return y + 0.1 * g.standard_normal(n), np.where(
                g.random(n) < share, (y + g.integers(1, 10, n)) % 10, y
            )

        return draw

    def linear(n: int, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = g.standard_normal((n, 16))
        return x, x @ weights.T + g.standard_normal((n, 8))

    for r in (0.1, 0.5, 0.9, 0.99):
        found[f"normal {r}"] = -math.log(1 - r * r) / 2, normal(r)
    for e in (0.05, 0.25, 0.75):
        found[f"uniform {e}"] = (math.log(1 / (2 * e)) + e if e <= 0.5 else 1 / (4 * e)), uniform(e)
    for a in (0.5, 2.0):
        found[f"gamma {a}"] = float(digamma(a + 1)) - math.log(a), gamma(a)
    for m in (2, 5):
        found[f"steps {m}"] = math.log(m) - (m - 1) * math.log(2) / m, steps(m)
    for p in (0.1, 0.5):
        found[f"labels {p}"] = math.log(10) + p * math.log(p / 9) + (1 - p) * math.log(1 - p), labels(p)
    found["signs 0.5"], found["signs 2"] = (0.1114, signs(0.5)), (0.6327, signs(2))
    found["linear layer"] = 2.3654, linear
    found["student 3x3"] = student_excess(2, 3, 3), student(3, 2).draw
    found["student 2x2"] = student_excess(1, 2, 2), student(2, 1).draw
    return found


def coverage(rows: int, seeds: range) -> None:
    print(f"share of 95 % intervals that hold the truth, {len(seeds)} draws of {rows} rows")
    shares = []
    for name, (truth, draw) in channels().items():
        held = []
        for seed in seeds:
            figure = mutual_information(*draw(rows, np.random.default_rng([seed, 7])))
            held.append(figure["low"] <= truth <= figure["high"])
        shares.append(float(np.mean(held)))
        print(f"  {name:14s} {truth:.4f}  {shares[-1]:.2f}")
    print(f"  mean {np.mean(shares):.3f}, worst {min(shares):.2f}")


def speed(count: int = 100_000) -> None:
    """CPU seconds of Kraskov's estimate of one pair, k = 3, best of three."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 1))
    y = 0.7 * x + 0.7 * rng.standard_normal((count, 1))
    jobs: dict[str, Callable[[], object]] = {
        "bntools": lambda: kraskov(x, y),
        "scikit-learn": lambda: mutual_info_regression(x, y[:, 0]),
    }
    if importlib.util.find_spec("ennemi"):
        ennemi = importlib.import_module("ennemi")
        jobs["ennemi"] = lambda: ennemi.estimate_mi(y[:, 0], x, k=3, preprocess=False)
    print(f"CPU seconds, {count:,} points of 1 + 1 coordinates")
    seconds: dict[str, float] = dict.fromkeys(jobs, math.inf)
    kraskov(x[:500], y[:500])
    for _ in range(3):
        for name, job in jobs.items():
            started = time.process_time()
            job()
            seconds[name] = min(seconds[name], time.process_time() - started)
    for name, taken in seconds.items():
        print(f"  {name:14s} {taken:.3f}  {taken / seconds['bntools']:.1f} times bntools")


def accuracy(rows: int, draws: int, first: int) -> None:
    report = bench(rows, draws, Estimation(seed=first))
    print(f"mean absolute error on 40 tasks, {rows:,} rows, nats: {report['mean_absolute_error']}")
    print(f"  {report['above_cap']} above their cap, {report['covered']:.2f} of the intervals hold the truth")
    for name in ("dense 25x25", "two pairs 25x25", "half cube of two pairs 25x25"):
        entries = [entry for entry in report["tasks"] if entry["task"] == name]
        error = np.mean([abs(entry["value"] / entry["truth"] - 1) for entry in entries])
        print(f"  {name}: {error:.1%} off, {entries[0]['seconds']:.1f} CPU s")


def criticised(rows: int, seed: int) -> None:
    """The spirals, which neighbours see a part of: without the critic and with it."""
    print(f"spirals, {rows:,} rows: truth, without, with the critic")
    for number, task in enumerate(tasks()):
        if task.name.startswith("spiral"):
            x, y = task.draw(rows, np.random.default_rng([seed, number]))
            plain = mutual_information(x, y, Estimation(interval=False), labels=False)
            began = time.process_time()
            found = mutual_information(x, y, Estimation(critic=True), labels=False)
            print(f"  {task.name:34s} {task.truth:.3f}  {plain['value']:.3f}  {found['value']:.3f} "
                  f"({found['low']:.3f} to {found['high']:.3f})  {time.process_time() - began:.0f} CPU s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--only", choices=["speed", "tasks", "coverage", "critic"])
    chosen = parser.parse_args()
    if chosen.only in (None, "speed"):
        speed()
    if chosen.only in (None, "tasks"):
        accuracy(chosen.rows, chosen.draws, chosen.first_seed)
    if chosen.only in (None, "coverage"):
        coverage(2000, range(chosen.first_seed, chosen.first_seed + chosen.seeds))
    if chosen.only == "critic":
        criticised(chosen.rows, chosen.first_seed)


if __name__ == "__main__":
    main()
