"""The degrees of freedom by their profile likelihood."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bntools.tools.mixed_fit.power_law import Groups, Point, climb

_FARTHEST = 1e5  # degrees of freedom that are Gaussian to every digit of a report
_POINTS = 9  # on each side of the best


class NuProfile(NamedTuple):
    """Deviance at each nu, ascending, and the ends of the interval; high is None where the Gaussian model is inside."""

    nu: list[float]
    deviance: list[float]
    low: float
    high: float | None


def profile_nu(groups: Groups, best: Point, level: float) -> NuProfile:
    """Refit at a range of nu around the best; the interval holds those whose deviance is less than a chi-square
    above."""
    from scipy.stats import chi2

    limit = -2 * groups.slope(best).value + float(chi2.ppf(level, 1))
    below, low = _walk(groups, best, limit, 0.75)
    above, high = _walk(groups, best, limit, 1.5)
    points = sorted([*below, (best.nu, -2 * groups.slope(best).value), *above])
    return NuProfile([nu for nu, _ in points], [value for _, value in points], low or points[0][0], high)


def _walk(
    groups: Groups, best: Point, limit: float, factor: float
) -> tuple[list[tuple[float, float]], float | None]:
    """Points from the best on until the limit is passed, and where, between two points by the line; None if never."""
    points: list[tuple[float, float]] = []
    point, last = best, (best.nu, -2 * groups.slope(best).value)
    for _ in range(40):
        nu = point.nu * factor
        if not 0.05 < nu < _FARTHEST:
            break
        factor = factor if len(points) < _POINTS else factor**1.5
        point = climb(groups, point._replace(nu=nu), fixed_nu=True)
        value = -2 * groups.slope(point).value
        points.append((nu, value))
        if value > limit:
            share = (limit - last[1]) / (value - last[1])
            return points, float(np.exp(np.log(last[0]) + share * (np.log(nu) - np.log(last[0]))))
        last = (nu, value)
    return points, None
