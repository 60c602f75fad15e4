"""From scored runs to the dimension: a monotone curve, where it crosses the target, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
REPLICATES = 1000


class Interval(NamedTuple):
    """value is None where the target was not reached, low and high where nothing bounds it on that side."""

    value: float | None
    low: float | None
    high: float | None


class Curve(NamedTuple):
    """Mean score, its standard error and the monotone fit at each dimension, ascending."""

    dims: Array
    mean: Array
    se: Array
    count: NDArray[np.int64]
    fit: Array


def isotonic(values: Array, weights: Array) -> Array:
    """The non-decreasing sequence nearest to `values` in weighted squares: pool adjacent violators."""
    blocks: list[list[float]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            v, w, n = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + v * w) / (before[1] + w)
            before[1] += w
            before[2] += n
    return np.concatenate([np.full(int(n), value) for value, _, n in blocks]) if blocks else np.zeros(0)


def crossing(dims: Array, fit: Array, target: float) -> float | None:
    """Where the fit, linear in log d between the dimensions, first reaches the target; None where it never does.

    Below the smallest dimension nothing is known: if that one reaches the target it is the answer.
    """
    reached = np.flatnonzero(fit >= target)
    if not len(reached):
        return None
    first = int(reached[0])
    if first == 0 or fit[first] == fit[first - 1]:
        return float(dims[first])
    share = (target - fit[first - 1]) / (fit[first] - fit[first - 1])
    return float(np.exp(np.log(dims[first - 1]) * (1 - share) + np.log(dims[first]) * share))


def curve(dims: Sequence[int], scores: Sequence[float]) -> Curve:
    """Means over the runs of each dimension, and the isotonic fit weighted by their number."""
    d, s = np.asarray(dims, np.float64), np.asarray(scores, np.float64)
    distinct, place, count = np.unique(d, return_inverse=True, return_counts=True)
    mean = np.bincount(place, s) / count
    spread = _pooled(s - mean[place], place, count)
    return Curve(distinct, mean, spread / np.sqrt(count), count, isotonic(mean, count.astype(np.float64)))


def _pooled(residuals: Array, place: NDArray, count: NDArray) -> Array:
    """Standard deviation of one run at each dimension, pooled over all dimensions with several runs."""
    free = int(np.sum(count - 1))
    return np.full(len(count), np.sqrt(float(np.sum(residuals**2)) / free) if free else 0.0)


def dimension(
    dims: Sequence[int], scores: Sequence[float], baseline: Sequence[float], threshold: float, floor: float | None,
    level: float = 0.95, seed: int = 0, least: int = 1,
) -> tuple[Interval, float, Curve]:  # fmt: skip
    """The dimension at which the monotone curve reaches the target, its bootstrap interval, target and curve.

    Target: threshold times the mean of the baseline's scores (Li et al. 2018); with a `floor`, threshold of the way
    from it to the baseline. The bootstrap resamples residuals from the means, pooled near the crossing and enlarged
    by sqrt(n / (n - 1)), of the runs as of the baseline: without repeated runs the interval is the bracket.
    Nothing bounds the dimension from below where the smallest one tried may reach the target, unless it is `least`.
    """
    base = np.asarray(baseline, np.float64)
    target = aim(float(base.mean()), threshold, floor)
    fitted = curve(dims, scores)
    value = crossing(fitted.dims, fitted.fit, target)
    bracket = _bracket(fitted, target)
    pool = _residuals(np.asarray(dims, np.float64), np.asarray(scores, np.float64), fitted, value)
    if not len(pool):
        return Interval(value, *bracket), target, fitted
    draws = np.sort(_replicates(fitted, pool, base, threshold, floor, seed))
    tail = int((1 - level) / 2 * len(draws))
    low, high = float(draws[tail]), float(draws[-1 - tail])
    low = low if np.isfinite(low) else float(fitted.dims[-1])
    unbounded = low == fitted.dims[0] > least and value is not None
    return Interval(value, None if unbounded else low, high if np.isfinite(high) else None), target, fitted


def aim(baseline: float, threshold: float, floor: float | None) -> float:
    """The score to reach."""
    return threshold * baseline if floor is None else floor + threshold * (baseline - floor)


def _bracket(fitted: Curve, target: float) -> tuple[float | None, float | None]:
    """The last dimension below the target and the first one at it."""
    reached = fitted.fit >= target
    above, below = fitted.dims[reached], fitted.dims[~reached]
    return (float(below[-1]) if len(below) else None, float(above[0]) if len(above) else None)


def _residuals(dims: Array, scores: Array, fitted: Curve, value: float | None) -> Array:
    """Residuals of the runs within a factor 4 of the crossing, enlarged to be free of bias in variance."""
    place = np.searchsorted(fitted.dims, dims)
    count = fitted.count[place]
    near = np.abs(np.log(dims / (value or fitted.dims[-1]))) < np.log(4)
    chosen = (count > 1) & (near if np.any(near & (count > 1)) else True)
    residuals = scores - fitted.mean[place]
    return (residuals * np.sqrt(count / np.maximum(count - 1, 1)))[chosen]


def _replicates(
    fitted: Curve, pool: Array, base: Array, threshold: float, floor: float | None, seed: int
) -> Array:
    """Crossings of curves whose every run, and whose baseline, got a residual of its own; inf where none."""
    random = np.random.Generator(np.random.PCG64(seed))
    centre = (base - base.mean()) * np.sqrt(len(base) / max(len(base) - 1, 1))
    noise = [random.choice(pool, (REPLICATES, n)).mean(1) for n in fitted.count]
    shifts = random.choice(centre, (REPLICATES, len(base))).mean(1)
    curves = isotonic_rows(fitted.fit + np.stack(noise, 1), fitted.count.astype(np.float64))
    draws = np.full(REPLICATES, np.inf)
    for row, (values, shift) in enumerate(zip(curves, shifts, strict=True)):
        at = crossing(fitted.dims, values, aim(float(base.mean() + shift), threshold, floor))
        draws[row] = np.inf if at is None else at
    return draws


def isotonic_rows(values: Array, weights: Array) -> Array:
    """`isotonic` of every row of values [rows, n]: the largest over starts of the least over ends of the means."""
    n = len(weights)
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values * weights, 1)], 1)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    result = np.full(values.shape, -np.inf)
    for start in range(n):
        means = (sums[:, start + 1 :] - sums[:, start : start + 1]) / (total[start + 1 :] - total[start])
        least = np.minimum.accumulate(means[:, ::-1], 1)[:, ::-1]
        np.maximum(result[:, start:], least, out=result[:, start:])
    return result
