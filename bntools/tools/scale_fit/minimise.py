"""A quasi-Newton minimiser for many small problems at once: starts of one fit, or replicates of a bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bntools.tools.scale_fit.laws import Array

Function = Callable[[Array, Array], tuple[Array, Array]]
"""(theta [k, p], which of the problems they belong to [k]) -> values [k], gradients [k, p]."""

_ARMIJO, _WOLFE = 1e-4, 0.9


@dataclass(frozen=True)
class Minima:
    """Points reached [batch, p], values there [batch], steps taken."""

    theta: Array
    value: Array
    steps: int


def minimise(
    function: Function, theta: Array, metric: Array, *, steps: int = 400, tolerance: float = 1e-13
) -> Minima:
    """BFGS on every row of theta [batch, p], from inverse Hessians `metric` [batch, p, p].

    The line search is the bisection for a weak Wolfe step that makes BFGS work on functions that are smooth only almost
    (Lewis and Overton, Math. Program. 141, 2013): a Huber loss with a small delta is nearly an absolute value.
    A row is done when two steps in turn gain less than `tolerance` of its value.
    """
    theta, metric = theta.copy(), metric.copy()
    value, gradient = function(theta, np.arange(len(theta)))
    active = np.flatnonzero(np.isfinite(value))
    idle = np.zeros(len(theta), int)
    taken = 0
    while len(active) and taken < steps:
        taken += 1
        slope = gradient[active]
        direction = -np.einsum("bij,bj->bi", metric[active], slope)
        descent = np.einsum("bi,bi->b", direction, slope)
        lost = ~(descent < 0)  # a metric spoiled by rounding: start again from the steepest descent
        direction[lost] = -slope[lost]
        descent[lost] = -np.einsum("bi,bi->b", slope[lost], slope[lost])
        before = (theta[active], value[active], slope)
        point, reached, new = _search(function, active, before, direction, descent)
        _update(metric, active, point - theta[active], new - slope, lost)
        gained = value[active] - reached
        idle[active] = np.where(gained <= tolerance * np.abs(reached), idle[active] + 1, 0)
        theta[active], value[active], gradient[active] = point, reached, new
        active = active[idle[active] < 2]
    return Minima(theta, value, taken)


def _search(
    function: Function, active: Array, before: tuple[Array, Array, Array], direction: Array, descent: Array
) -> tuple[Array, Array, Array]:
    """The point, value and gradient of a weak Wolfe step for each row; the best point seen where none was found."""
    start, value, _ = before
    count = len(active)
    low, high, size = np.zeros(count), np.full(count, np.inf), np.ones(count)
    best, best_value, best_gradient = (given.copy() for given in before)
    open_ = np.arange(count)
    for _ in range(30):
        trial = start[open_] + size[open_, None] * direction[open_]
        height, gradient = function(trial, active[open_])
        falls = height <= value[open_] + _ARMIJO * size[open_] * descent[open_]
        flat = np.einsum("bi,bi->b", gradient, direction[open_]) >= _WOLFE * descent[open_]
        rows = falls & (height <= best_value[open_])
        better = open_[rows]
        best[better], best_value[better], best_gradient[better] = trial[rows], height[rows], gradient[rows]
        high[open_[~falls]] = size[open_[~falls]]
        low[open_[falls & ~flat]] = size[open_[falls & ~flat]]
        open_ = open_[~(falls & flat)]
        if not len(open_):
            break
        bounded = np.isfinite(high[open_])
        size[open_] = np.where(bounded, (low[open_] + np.where(bounded, high[open_], 0)) / 2, 2 * size[open_])
    return best, best_value, best_gradient


def _update(metric: Array, active: Array, step: Array, change: Array, lost: Array) -> None:
    """The BFGS update of the inverse Hessians of the active rows, left out where the curvature is not positive."""
    size = step.shape[1]
    metric[active[lost]] = np.eye(size)
    curvature = np.einsum("bi,bi->b", step, change)
    norm = np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
    rows = np.flatnonzero((curvature > 1e-14 * norm) & (curvature > 0))
    s, y, rho = step[rows], change[rows], 1 / curvature[rows]
    left = np.eye(size) - rho[:, None, None] * s[:, :, None] * y[:, None, :]
    old = metric[active[rows]]
    metric[active[rows]] = (
        left @ old @ left.transpose(0, 2, 1) + rho[:, None, None] * s[:, :, None] * s[:, None, :]
    )
