"""The calibrated estimate: log ratios at four scales, read off against those of spheres, balls and Gaussians."""

from __future__ import annotations

import functools
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
FEWEST_CALIBRATED = 100
"""Points needed: of fewer, the 20th neighbour is across the data, and its curve on spheres falls near d = 1."""
_DIMENSIONS = np.geomspace(1.0, 1000.0, 30)


class Calibrated(NamedTuple):
    """The estimate, and the estimate under each family alone."""

    value: float
    families: dict[str, float]


def statistics(r: Floats) -> Floats:
    """Logarithms of the inverse mean log ratios of each number of neighbours in WEIGHTS, [4].

    r [M, 20 or more]: ascending distances. Each is ln d where density is constant and space is flat.
    """
    return np.array([-np.log(mean_log_ratios(r, k).mean()) for k in WEIGHTS])


def calibrate(found: Floats, count: int) -> Calibrated:
    """The dimension whose spheres, balls and Gaussians of `count` points have the statistics found [4].

    Each statistic is read off its own curve, ln d is their weighted sum, and the result the geometric mean over the
    families. None of these is right for real data; their spread says what that may cost. Idea: compare with
    simulated spheres of the same size (Ceruti et al. 2014, DANCo). Deviation: no angles, exact expectations
    instead of simulations, three families, several scales. Curves go on straight beyond 1 and 1000 dimensions.
    """
    weights = np.array(list(WEIGHTS.values()))
    families = {family: float(np.exp(weights @ logs)) for family, logs in readings(found, count).items()}
    return Calibrated(float(np.exp(np.mean(np.log(list(families.values()))))), families)


def readings(found: Floats, count: int) -> dict[str, Floats]:
    """ln d that each statistic [4] alone gives on each family."""
    return {
        family: np.array([_read(c, x) for c, x in zip(_curves(family, count), found, strict=True)])
        for family in FAMILIES
    }


@functools.lru_cache(maxsize=8)
def _curves(family: str, count: int) -> Floats:
    """The statistics expected of `count` points of a family in each of _DIMENSIONS, [4, 30]."""
    logs = [expected_log_distances(family, float(d), count, NEIGHBOURS) for d in _DIMENSIONS]
    return np.array([[-np.log(e[k - 1] - e[: k - 1].mean()) for e in logs] for k in WEIGHTS])


def _read(curve: Floats, value: float) -> float:
    """ln d at which a rising curve has a value."""
    from scipy.interpolate import PchipInterpolator

    curve, log_d = np.maximum.accumulate(curve) + 1e-9 * np.arange(len(curve)), np.log(_DIMENSIONS)
    if value <= curve[0]:
        return float(log_d[0] + value - curve[0])
    if value >= curve[-1]:
        return float(log_d[-1] + value - curve[-1])
    return float(PchipInterpolator(curve, log_d)(value))
