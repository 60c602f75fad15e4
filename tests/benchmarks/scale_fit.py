"""Our starts beside the 4,500 of the published procedure: objective and CPU seconds, on Chinchilla's 240 runs.

The grid is Hoffmann et al.'s (arXiv 2203.15556, section 3.3; values from arXiv 2404.10102): a, b in 0, 5 .. 25, e in
-1, -0.5 .. 1, alpha, beta in 0, 0.5 .. 2, each start polished by scipy's L-BFGS-B. It gets our objective and exact
gradient, so the difference is where the starts are and that ours are worked on together, not the language.
`--every K` takes every K-th start of the grid, its time scaled. `--coverage` adds how often intervals hold the truth.
Times are CPU time of this process, on one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from bntools.tools.scale_fit import Settings, fit_scaling_law, training_runs
from bntools.tools.scale_fit.fit import Fit
from bntools.tools.scale_fit.objective import Problem, objective

POINTS = Path(__file__).resolve().parents[1] / "tools" / "scale_fit" / "chinchilla.jsonl"
EXPONENTS, COEFFICIENTS, FLOORS = np.arange(0, 2.1, 0.5), np.arange(0, 26, 5.0), np.arange(-1, 1.1, 0.5)


def chinchilla_runs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, N and C of the 240 runs: those read off the paper's figure less the five of highest loss."""
    rows = sorted(
        (json.loads(line) for line in POINTS.read_text().splitlines()), key=lambda row: row["loss"]
    )[:240]
    loss, n, c = (np.array([row[key] for row in rows]) for key in ("loss", "N", "C"))
    return loss, n, c


def grid(problem: Problem, every: int) -> tuple[np.ndarray, int]:
    """Objectives that every `every`-th start of the grid ends at, and the size of the whole grid."""

    def plain(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(problem, theta[None])
        return float(value[0]), gradient[0]

    points = list(itertools.product(COEFFICIENTS, EXPONENTS, COEFFICIENTS, EXPONENTS, FLOORS))
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 15000}
    ends = [
        minimize(plain, np.array(p), jac=True, method="L-BFGS-B", options=options).fun
        for p in points[::every]
    ]
    return np.array(ends), len(points)


def uncentred(fit: Fit) -> Problem:
    """The problem in ln N and ln D as they are, which is what the grid's values are for."""
    return Problem(fit.law, fit.problem.x + fit.center[:, None], fit.problem.y, fit.problem.delta)


def starts_table(every: int) -> None:
    loss, n, c = chinchilla_runs()
    runs = training_runs(loss, N=n, C=c)
    fit_scaling_law(runs, Settings(bootstrap=0))
    rows = []
    for name, settings in (
        ("ours, 24 starts", Settings(bootstrap=0)),
        ("and 1,000 replicates", Settings(threads=1)),
    ):
        times, fit = [], None
        for _ in range(5):
            began = time.process_time()
            fit = fit_scaling_law(runs, settings)
            times.append(time.process_time() - began)
        assert fit is not None
        rows.append((name, min(times), fit.objective, f"{fit.reached} of {fit.tried}"))
    began = time.process_time()
    ends, size = grid(uncentred(fit), every)
    seconds = (time.process_time() - began) * size / len(ends)
    good = int((ends <= ends.min() * (1 + 1e-6)).sum())
    rows.append((f"grid of {size:,}, L-BFGS-B", seconds, float(ends.min()), f"{good} of {len(ends)}"))
    print(f"{'':<28}{'CPU s':>9}{'objective':>17}{'at the best':>16}")
    for name, spent, value, share in rows:
        print(f"{name:<28}{spent:>9.3f}{value:>17.9e}{share:>16}")
    print(
        f"grid / ours: {seconds / rows[0][1]:.0f} times the time, objective {ends.min() / rows[0][2] - 1:+.1e} of ours"
    )


def coverage_table(samples: int) -> None:
    """Share of 95 % intervals of alpha that hold it, and their median width."""
    print(f"\n{'samples ' + str(samples):<28}{'runs':>6}{'replicates by':>16}{'held':>8}{'width':>8}")
    for count in (8, 60):
        x = np.geomspace(1e7, 1e10, count)
        for resample in ("weights", "runs", "noise"):
            found = []
            for seed in range(samples):
                noise = 0.003 * np.random.default_rng(seed).normal(size=count)
                runs = training_runs((1.7 + 400 * x**-0.34) * np.exp(noise), N=x)
                settings = Settings(starts=12, bootstrap=200, resample=resample, seed=seed, threads=1)
                found.append(np.percentile(fit_scaling_law(runs, settings).samples[:, 1], [2.5, 97.5]))
            low, high = np.array(found).T
            held = np.mean((low <= 0.34) & (high >= 0.34))
            print(f"{'power law':<28}{count:>6}{resample:>16}{held:>8.3f}{np.median(high - low):>8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--coverage", type=int, default=0, metavar="SAMPLES")
    options = parser.parse_args()
    starts_table(options.every)
    if options.coverage:
        coverage_table(options.coverage)


if __name__ == "__main__":
    main()
