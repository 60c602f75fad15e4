"""Intervals by subsampling without replacement: no row occurs twice, which nearest neighbours would take for mass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Indices = NDArray[np.int64]

_GROUPS = 20
_SMALLEST = 100
"""Rows of a group at least; with fewer rows in all, groups are left out instead of taken."""


def standard_error(
    value: Callable[[Indices], float], count: int, rng: np.random.Generator, *, fewest: int = 0
) -> tuple[float, int]:
    """Standard error of an estimate over `count` rows and its degrees of freedom; value: the estimate on some rows,
    of which it needs `fewest` at least.

    2,000 rows or more: 20 disjoint subsamples, whose spread over the root of 20 is that of all rows as the variance
    goes with 1 / N (Politis and Romano 1994). Fewer: the delete-group jackknife over 20 groups.
    """
    order = rng.permutation(count)
    groups = np.array_split(order, _GROUPS)
    if count >= _GROUPS * max(_SMALLEST, fewest):
        values = np.array([value(np.sort(group)) for group in groups])
        return float(values.std(ddof=1) / np.sqrt(_GROUPS)), _GROUPS - 1
    values = np.array([value(np.sort(np.setdiff1d(order, group))) for group in groups])
    return float(np.sqrt((_GROUPS - 1) * values.var())), _GROUPS - 1


def drift(value: Callable[[Indices], float], count: int, whole: float, rng: np.random.Generator) -> float:
    """What the estimate gains from a quarter of the rows to all of them: the size of the bias still to be expected."""
    quarters = np.array_split(rng.permutation(count), 4)
    return whole - float(np.mean([value(np.sort(quarter)) for quarter in quarters]))


def half_width(error: float, freedom: int, level: float = 0.95) -> float:
    """Half of a two-sided interval of this level."""
    return float(stdtrit(freedom, (1 + level) / 2)) * error
