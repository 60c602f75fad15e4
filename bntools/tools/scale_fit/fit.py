"""Fitting a law to runs: many starts, one minimum, and its spread over a bootstrap."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from bntools.core.errors import usage
from bntools.core.progress import Step, no_step
from bntools.core.report import values
from bntools.core.work.shards import Shard
from bntools.tools.scale_fit.laws import Array, Law, evaluate
from bntools.tools.scale_fit.minimise import Minima, minimise
from bntools.tools.scale_fit.objective import Problem, curvature, objective
from bntools.tools.scale_fit.runs import Runs, check_count
from bntools.tools.scale_fit.starts import starts
from bntools.tools.scale_fit.trust.determined import few
from bntools.tools.scale_fit.trust.noise import redrawn

LAWS = ("chinchilla", "kaplan", "power")
_BLOCK = 32768
"""Numbers an array of a block of replicates holds: it stays in the cache."""
_FEWEST = 20
"""Replicates for which percentiles are worth reporting."""
_MADE_UP = 20
"""Residual degrees of freedom below which weights of the runs spread the replicates too little."""
_SEARCHED = 4096
"""Runs the starts are searched on; with more, an even part of them."""


@dataclass(frozen=True)
class Settings:
    """What a fit depends on.

    law: chinchilla, kaplan, power or auto (by what varies). x: the variable of `power`. irreducible: whether E is
    fitted; None: as the law's paper has it. delta: Huber's. starts: polished ones. bootstrap: replicates.
    resample: `weights` (Dirichlet weights of the runs: Rubin, Ann. Statist. 9, 1981), `runs` (drawn anew), `noise`
    (made up from the law: `trust.noise`) or `auto`: `noise` below 20 residual degrees of freedom, else `weights`.
    """

    law: str = "auto"
    x: str | None = None
    irreducible: bool | None = None
    delta: float = 1e-3
    starts: int = 24
    bootstrap: int = 1000
    resample: str = "auto"
    level: float = 0.95
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Fit:
    """A fitted law: theta [parameters] and its bootstrap replicates [replicates, parameters], both for centred logs."""

    law: Law
    variables: tuple[str, ...]
    runs: Runs
    settings: Settings
    problem: Problem
    center: Array
    theta: Array
    objective: float
    reached: int
    tried: int
    samples: Array = field(repr=False)

    def residuals(self) -> Array:
        """Measured minus fitted log loss, [runs]."""
        return self.problem.y - evaluate(self.law, self.theta[None], self.problem.x).log_loss[0]

    def jacobian(self) -> Array:
        """Derivatives of the fitted log loss by the parameters, [runs, parameters]."""
        return np.stack(
            [part[0] for part in evaluate(self.law, self.theta[None], self.problem.x).derivatives], 1
        )

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Each parameter by name in the units of the runs, [batch], for theta [batch, parameters]."""
        values = dict(zip(self.law.parameters, theta.T, strict=True))
        with np.errstate(over="ignore"):
            for factor, exponent, middle in zip(("A", "B"), ("alpha", "beta"), self.center, strict=False):
                values[factor] = np.exp(values[factor] + values[exponent] * middle)
            if "E" in values:
                values["E"] = np.exp(values["E"])
        return values

    def predict(self, values: dict[str, float], theta: Array | None = None) -> Array:
        """Loss at one point, [batch] for theta [batch, parameters], by default the fitted one."""
        x = np.array([[np.log(values[name])] for name in self.variables]) - self.center[:, None]
        chosen = self.theta[None] if theta is None else theta
        return np.exp(evaluate(self.law, chosen, x).log_loss[:, 0])


def choose_law(runs: Runs, settings: Settings) -> tuple[Law, tuple[str, ...]]:
    """The law and the names of its variables. Raises BnError (exit 2) where the runs do not have them."""
    varying = runs.varying()
    joint = {"N", "D"} <= set(varying)
    name = settings.law if settings.law != "auto" else "power" if settings.x or not joint else "chinchilla"
    if name != "power" and not joint:
        missing = [v for v in ("N", "D") if v not in varying]
        raise usage(f"--law {name} needs N and D that both vary; {missing[0]} does not", "--law power")
    irreducible = settings.irreducible if settings.irreducible is not None else name != "kaplan"
    if name != "power":
        return Law(name, irreducible), ("N", "D")
    if not varying:
        raise usage("all runs are at one point: neither N, D nor C varies", "add runs of other sizes")
    if settings.x and settings.x not in varying:
        raise usage(f"--x {settings.x}: the runs do not vary it", f"--x {varying[0]}")
    return Law(name, irreducible), (settings.x or ("C" if joint else varying[0]),)


def fit_scaling_law(
    runs: Runs, settings: Settings | None = None, step: Step = no_step, *, shard: Shard | None = None,
    samples: Array | None = None,
) -> Fit:  # fmt: skip
    """The law of least Huber loss on log losses, with replicates for its intervals.

    After Hoffmann et al. (arXiv 2203.15556, section 3.3), whose 4,500 starts are replaced by the best nodes of a grid
    over the exponents alone (`starts`). `step` is called with the number of replicates done. With `shard` only that
    part of the replicates is made; `samples`: those that parts have made.
    Raises BnError: exit 2 for a law the runs cannot have, 3 for too few runs.
    """
    settings = settings or Settings()
    law, variables = choose_law(runs, settings)
    check_count(runs, len(law.parameters))
    x = np.log(np.stack([runs.values[name] for name in variables]))
    center = x.mean(1)
    problem = Problem(law, x - center[:, None], np.log(runs.loss), settings.delta)
    theta, value, reached, tried = _best(problem, settings.starts)
    if samples is None:
        samples = _bootstrap(problem, theta, settings, step, shard)
    return Fit(law, variables, runs, settings, problem, center, theta, value, reached, tried, samples)


def polish(problem: Problem, theta: Array, weights: Array | None = None, tolerance: float = 1e-13) -> Minima:
    """The minimum near each row of theta, whose runs count as often as its row of weights says."""

    def function(point: Array, which: Array) -> tuple[Array, Array]:
        return objective(problem, point, None if weights is None else weights[which])

    return minimise(function, theta, np.linalg.inv(curvature(problem, theta, weights)), tolerance=tolerance)


def _best(problem: Problem, count: int) -> tuple[Array, float, int, int]:
    """The best minimum, its objective, and how many of the starts reached it to a part in a million."""
    stride = -(-problem.y.size // _SEARCHED)
    part = replace(problem, x=problem.x[:, ::stride], y=problem.y[::stride])
    polished = polish(part, starts(part, count))
    order = np.argsort(polished.value, kind="stable")
    lowest = float(polished.value[order[0]])
    close = polished.value <= lowest * (1 + 1e-6) + 1e-15 * part.y.size
    theta, value = polished.theta[order[0]], lowest
    if stride > 1:
        full = polish(problem, theta[None])
        theta, value = full.theta[0], float(full.value[0])
    return theta, value, int(close.sum()), len(order)


def _bootstrap(problem: Problem, theta: Array, settings: Settings, step: Step, shard: Shard | None) -> Array:
    """Minima [replicates, parameters] of reweighted objectives, each searched from the fit.

    The blocks do not depend on the number of threads, nor do their random numbers: neither does the result.
    """
    count, runs = settings.bootstrap, problem.y.size
    rows = max(1, _BLOCK // runs)
    blocks = [range(first, min(first + rows, count)) for first in range(0, count, rows)]
    seeds = np.random.SeedSequence(settings.seed).spawn(len(blocks))
    how = resampling(settings, runs - theta.size)

    def work(index: int) -> Array:
        random, size = np.random.default_rng(seeds[index]), len(blocks[index])
        return _replicates(problem, theta, random, size, how)

    mine = range(len(blocks)) if shard is None else shard.of([len(block) for block in blocks])
    parts = []
    for part in _mapped(work, mine, settings.threads or os.cpu_count() or 1):
        parts.append(part)
        step(len(part))
    return np.concatenate(parts) if parts else np.empty((0, len(theta)))


def _replicates(problem: Problem, theta: Array, random: np.random.Generator, count: int, how: str) -> Array:
    if how == "noise":
        return redrawn(problem, theta, random, count)
    weights = _weights(random, count, problem.y.size, how)
    return polish(problem, np.repeat(theta[None], count, 0), weights, 1e-9).theta


def resampling(settings: Settings, free: int) -> str:
    """How replicates are made with so many residual degrees of freedom."""
    if settings.resample != "auto":
        return settings.resample
    return "noise" if free < _MADE_UP else "weights"


def _weights(random: np.random.Generator, count: int, runs: int, resample: str) -> Array:
    """How much each run counts in each replicate, [count, runs], `runs` in all."""
    if resample == "runs":
        return random.multinomial(runs, np.full(runs, 1 / runs), size=count).astype(float)
    return random.dirichlet(np.ones(runs), count) * runs


def _mapped(work: Callable[[int], Array], indices: range, threads: int) -> Iterator[Array]:
    """Results in order, by threads: numpy computes without the interpreter. An interrupt drops what is queued."""
    if threads == 1 or len(indices) < 2:
        yield from map(work, indices)
        return
    pool = ThreadPoolExecutor(min(threads, len(indices)))
    try:
        yield from pool.map(work, indices)
    finally:
        pool.shutdown(cancel_futures=True)


def interval(fit: Fit, value: float, samples: Array) -> dict[str, float | None]:
    """{value, low, high}: percentiles of the replicates at the fit's level, and the value if it lies outside them.

    low and high are None for under 20 replicates, under 3 residual degrees of freedom, and replicates out of range.
    """
    low = high = float("nan")
    if len(samples) >= _FEWEST and not few(fit) and not np.isnan(samples).any():
        tail = 50 * (1 - fit.settings.level)
        with np.errstate(all="ignore"):
            low, high = (float(end) for end in np.percentile(samples, [tail, 100 - tail]))
    if not (np.isfinite(low) and np.isfinite(high)):
        low = high = float("nan")
    return cast("dict[str, float | None]", values.interval(value, min(low, value), max(high, value)))
