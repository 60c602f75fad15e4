"""Runs made up from a fitted law and normal noise, and the law fitted to them again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bntools.tools.scale_fit.laws import Array, evaluate
from bntools.tools.scale_fit.minimise import Minima, minimise
from bntools.tools.scale_fit.objective import Problem, curvature, objective, residuals

OUTLYING = 5.0
"""Robust standard deviations an outlier is off at least: one in a million if all residuals were normal."""
FEW = 100
"""Residual degrees of freedom up to which 5 is too few for the largest of the scores of clean runs."""
_DRAWS = 400
_QUANTILE = 0.96
_NORMAL_MEDIAN = 0.6745
"""Median of the absolute value of a standard normal variable."""
_ROUNDING = 1e-9


def scatter(problem: Problem, theta: Array) -> float:
    """Standard deviation of the log losses about the law, from n - p residuals."""
    free = problem.y.size - theta.size
    return float(np.sqrt(np.square(residuals(problem, theta[None])[0]).sum() / max(free, 1)))


def refit(problem: Problem, theta: Array, losses: Array) -> Minima:
    """The minimum near theta for each row of log losses [batch, runs]."""

    def function(point: Array, which: Array) -> tuple[Array, Array]:
        return objective(replace(problem, y=losses[which]), point)

    first = np.repeat(theta[None], len(losses), 0)
    metric = np.linalg.inv(curvature(replace(problem, y=losses), first))
    return minimise(function, first, metric, tolerance=1e-9)


def redrawn(problem: Problem, theta: Array, random: np.random.Generator, count: int) -> Array:
    """Laws [count, parameters] fitted to as many sets of made-up losses.

    A set's noise has one scale, drawn from the scaled inverse chi-square distribution of n - p degrees of freedom: what
    is known of the scale. In a linear model percentiles of these are Student's intervals.
    """
    free = problem.y.size - theta.size
    scale = scatter(problem, theta) * np.sqrt(free / random.chisquare(free, (count, 1)))
    noise = scale * random.normal(size=(count, problem.y.size))
    return refit(problem, theta, evaluate(problem.law, theta[None], problem.x).log_loss + noise).theta


def scores(residual: Array, parameters: int) -> Array:
    """Residuals [batch, runs] over the robust scale of the other runs.

    p of n residuals may be fitted away, so the scale is the median of the n - p - 1 largest of the others; 0 where
    there are none.
    """
    count = residual.shape[1] - parameters - 1
    if count < 1:
        return np.zeros_like(residual)
    order = np.argsort(-np.abs(residual), 1, kind="stable")
    largest = np.take_along_axis(np.abs(residual), order, 1)
    rank = np.argsort(order, 1)
    middle = [
        np.take_along_axis(largest, at + (at >= np.minimum(rank, count)), 1)
        for at in ((count - 1) // 2, count // 2)
    ]
    return residual / np.maximum((middle[0] + middle[1]) / 2 / _NORMAL_MEDIAN, _ROUNDING)


def threshold(problem: Problem, theta: Array, seed: int) -> float:
    """The score that the largest of clean runs exceeds in at most 5 % of cases: 5, or more for few runs."""
    free = problem.y.size - theta.size
    if free > FEW:
        return OUTLYING
    largest = np.sort(np.abs(residuals(problem, theta[None])[0]))[-max(free, 1) :]
    scale = max(float(np.median(largest)) / _NORMAL_MEDIAN, _ROUNDING)
    noise = scale * np.random.default_rng(seed).normal(size=(_DRAWS, problem.y.size))
    losses = evaluate(problem.law, theta[None], problem.x).log_loss + noise
    again = refit(problem, theta, losses).theta
    most = np.abs(scores(residuals(replace(problem, y=losses), again), theta.size)).max(1)
    return max(OUTLYING, float(np.quantile(most[np.isfinite(most)], _QUANTILE)))
