"""The calibrated estimate: log ratios, read off against those of spheres, balls and Gaussians, corrected by angles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_dim.estimators import mean_log_ratios
from bntools.tools.data_dim.isotropic import FAMILIES, expected_log_distances

Floats = NDArray[np.float64]

WEIGHTS = {2: 0.3, 3: 0.3, 5: 0.75, 20: -0.35}
"""Weight of each number of neighbours; they add up to 1.

The negative one extrapolates from 20 neighbours to the smallest: curvature and uneven density show as a change of the
estimate with scale. Fitted once, by least absolute relative error, to 22 kinds of manifolds of 500 and 1000 points
(tests/benchmarks/manifolds.py, none of them from scikit-dimension's benchmark), and rounded.
"""
NEIGHBOURS = max(WEIGHTS)
ANGLE_NEIGHBOURS = 8
"""Neighbours between whose differences angles are taken: enough for an even count of 6 pairs, few enough to be near."""
PULL, NARROW, PUSH, WIDE = 0.175, 0.1, 0.345, 0.5
"""ln d changes by PULL tanh(gap / NARROW) - PUSH tanh(gap / WIDE), gap = ln d of the angles - ln d of the distances.

Uneven density lowers what distances say and leaves angles alone: a gap of up to 0.1, and the angles are right.
Curvature raises both, and the angles by far more: a large gap, and less is right than either says. Fitted like
WEIGHTS, to 500, 1000 and 2500 points; the form was chosen by the error on kinds left out of the fit.
"""
FEWEST_CALIBRATED = 100
"""Points needed: of fewer, the 20th neighbour is across the data, and its curve on spheres falls near d = 1."""
_DIMENSIONS = np.geomspace(1.0, 1000.0, 30)


class Calibrated(NamedTuple):
    """The estimate, and the estimate under each family alone."""

    value: float
    families: dict[str, float]


class Statistics(NamedTuple):
    """Each is ln d where density is constant and space is flat. ratios [4]: one a number of neighbours in WEIGHTS."""

    ratios: Floats
    angle: float


def statistics(r: Floats, cosines: Floats) -> Statistics:
    """Of ascending distances r [M, 20 or more] and `estimators.squared_cosines` [M, 2] of the same points."""
    ratios = np.array([-np.log(mean_log_ratios(r, k).mean()) for k in WEIGHTS])
    total, count = cosines.sum(0)
    return Statistics(ratios, float(-np.log(total / count)))


def calibrate(statistics: Statistics, count: int) -> Calibrated:
    """The dimension whose spheres, balls and Gaussians of `count` points have the statistics found.

    Each ratio is read off its own curve, ln d is their weighted sum, and the result the geometric mean over the
    families, corrected by what angles say. None of the families is right for real data; their spread says what that
    may cost. Idea: compare with simulated spheres of the same size, distances and angles (Ceruti et al. 2014, DANCo).
    Deviations: exact expectations instead of simulations, three families, several scales; angles are not calibrated
    but correct for what the families lack, uneven density and curvature. Curves go on straight beyond 1 and 1000.
    """
    weights = np.array(list(WEIGHTS.values()))
    logs = {family: float(weights @ values) for family, values in readings(statistics.ratios, count).items()}
    middle = float(np.mean(list(logs.values())))
    change = correction(statistics.angle - middle)
    return Calibrated(float(np.exp(middle + change)), {k: float(np.exp(v + change)) for k, v in logs.items()})


def correction(gap: float) -> float:
    """Change of ln d where angles say so much more than distances."""
    return float(PULL * np.tanh(gap / NARROW) - PUSH * np.tanh(gap / WIDE))


def readings(statistics: Floats, count: int) -> dict[str, Floats]:
    """ln d that each ratio [4] alone gives on each family."""
    return {
        family: np.array(
            [read(float(x)) for read, x in zip(_readers(family, count), statistics, strict=True)]
        )
        for family in FAMILIES
    }


@functools.lru_cache(maxsize=8)
def _readers(family: str, count: int) -> list[Callable[[float], float]]:
    """ln d from each ratio expected of `count` points of a family, [4]."""
    logs = [expected_log_distances(family, float(d), count, NEIGHBOURS) for d in _DIMENSIONS]
    return [_reader(np.array([-np.log(e[k - 1] - e[: k - 1].mean()) for e in logs])) for k in WEIGHTS]


def _reader(curve: Floats) -> Callable[[float], float]:
    """ln d at which a rising curve over _DIMENSIONS has a value."""
    from scipy.interpolate import PchipInterpolator

    curve, log_d = np.maximum.accumulate(curve) + 1e-9 * np.arange(len(curve)), np.log(_DIMENSIONS)
    inverse = PchipInterpolator(curve, log_d)

    def read(value: float) -> float:
        if value <= curve[0]:
            return float(log_d[0] + value - curve[0])
        if value >= curve[-1]:
            return float(log_d[-1] + value - curve[-1])
        return float(inverse(value))

    return read
