"""The exponential mixing law (Ye et al., arXiv 2403.16952): L_d(p) = c_d + k_d exp(sum_j t_dj p_j) per domain d.

The mixture's metric is a sum of its domains with weights that are learnt, none below 0; a table without domains is one
domain. The law has no size: it is fitted at each of the two largest, and `two_point` joins them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.tools.data_mix.runs.runs import Runs

Floats = NDArray[np.floating[Any]]

_RIDGE = 1e-3
_STARTS = 8


class Exponential(NamedTuple):
    """Parameters [domains, sources + 2] (c and k before softplus, t) at each size, and the domains' weights."""

    sizes: tuple[float, ...]
    parameters: tuple[Floats, ...]
    share: Floats

    def predict(self, weights: Floats, n: float) -> Floats:
        """The metric [k] at size n."""
        values = [self.share @ np.stack([_law(q, weights) for q in each]) for each in self.parameters]
        return two_point(values, self.sizes, n)


def fit(runs: Runs, seed: int = 0) -> Exponential:
    """Least squares with a ridge on t, from 8 starts. Raises BnError (exit 3) under sources + 2 mixtures a size."""
    sizes, laws = tuple(float(size) for size in runs.sizes[-2:]), []
    wanted = len(runs.sources) + 2
    domains, share = shares(runs)
    for size in sizes:
        rows = np.flatnonzero(runs.n == size)
        if len(rows) < wanted:
            raise bad_input(
                f"exp: {len(rows)} runs at size {size:g}, and the law has {wanted} parameters",
                f"{wanted - len(rows)} more runs of that size, or --method joint",
            )
        laws.append(np.stack([_fitted(runs.weights[rows], d[rows], seed) for d in domains]))
    return Exponential(sizes, tuple(laws), share)


def shares(runs: Runs) -> tuple[list[Floats], Floats]:
    """The domains' losses and the weights, none below 0, by which they add up to the metric."""
    from scipy.optimize import nnls

    if not runs.domains:
        return [runs.lower], np.ones(1)
    domains = list(runs.domains.values())
    return domains, nnls(np.stack(domains, 1), runs.lower)[0]


def two_point(values: list[Floats], sizes: tuple[float, ...], n: float) -> Floats:
    """The power law in N through predictions at two sizes, mixture by mixture; with one size its own prediction.

    Of fitted values that are not above 0 the law is linear in ln N.
    """
    if len(sizes) == 1:
        return values[0]
    ahead = np.log(n / sizes[1]) / np.log(sizes[1] / sizes[0])
    first, second = values
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        power = second * (second / first) ** ahead
    return np.where((first > 0) & (second > 0), power, second + ahead * (second - first))


def _softplus(x: Floats) -> Floats:
    return np.logaddexp(0, x)


def _law(q: Floats, weights: Floats) -> Floats:
    return _softplus(q[0]) + _softplus(q[1]) * np.exp(np.minimum(weights @ q[2:], 50.0))


def _fitted(weights: Floats, value: Floats, seed: int) -> Floats:
    from scipy.optimize import least_squares

    rng, best, cost = np.random.default_rng(seed), None, np.inf
    spread = max(float(np.ptp(value)), 1e-3)

    def residual(q: Floats) -> Floats:
        return np.concatenate([(_law(q, weights) - value) / spread, np.sqrt(_RIDGE) * q[2:]])

    for _ in range(_STARTS):
        low, rise = value.min() * rng.uniform(0.2, 1), spread * rng.uniform(0.2, 2)
        start = np.concatenate([np.log(np.expm1([low, rise])), rng.normal(0, 1, weights.shape[1])])
        result = least_squares(residual, start, max_nfev=200)
        if result.cost < cost:
            best, cost = result.x, result.cost
    assert best is not None
    return best
