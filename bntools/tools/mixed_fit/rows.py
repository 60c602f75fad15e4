"""Errors of each row with a t law: a mean-field fit whose weights are those of the rows.

e_i ~ N(0, s^2 / w_i) with w_i ~ Gamma(nu / 2, nu / 2), q(u) q(w) in place of their joint law. With the weights' means
known the rest is the Gaussian mixed model with those weights, fitted to its optimum; given that fit, row i has
w_i = (nu + 1) / (nu + (r_i^2 + Var z_i^T u) / s^2). Crossed and nested groups as in the Gaussian model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.mixed_fit.data import MixedData
from bntools.tools.mixed_fit.gaussian import Products, Solution, fit

Floats = NDArray[np.float64]
_START_NU = 4.0
_ROUNDS, _SETTLED = 200, 1e-4  # the change of a weight at which the rounds end


class RowFit(NamedTuple):
    """Theta, the weighted Gaussian fit, weights of the rows [n], degrees of freedom, rounds."""

    theta: Floats
    solution: Solution
    weights: Floats
    nu: float
    rounds: int


def fit_rows(data: MixedData, theta: Floats, nu: float | None) -> RowFit:
    """Alternate the weighted fit and the weights from `theta`; nu: fixed, or by its own optimum each round."""
    weights, degrees = np.ones(len(data.y)), nu or _START_NU
    rounds, moved = 0, np.inf
    products = Products(data)
    solution = products.solve(theta)
    while moved >= _SETTLED and rounds < _ROUNDS:
        rounds += 1
        residual = data.y - data.x @ solution.beta
        for term, effects in zip(data.terms, solution.effects, strict=True):
            residual = residual - (term.z * effects[term.codes]).sum(1)
        # s^2 of a weighted ML fit is the mean of w r^2 and the penalty; of the errors alone it follows from both
        spread = residual**2 + solution.sigma**2 * products.row_variances(theta, data)
        scale = float((weights * spread).mean())
        new = (degrees + 1) / (degrees + spread / scale)
        if nu is None:
            degrees = _degrees(degrees, spread / scale)
        moved = float(np.abs(new - weights).max())
        weights = new
        products = Products(data, weights)
        theta = fit(products, theta, False)
        solution = products.solve(theta)
    return RowFit(theta, solution, weights, degrees, rounds)


def _degrees(nu: float, distances: Floats) -> float:
    """nu where the mean of E ln w - E w, with w as it is known from the distances, equals that of its prior."""
    from scipy.optimize import brentq
    from scipy.special import psi

    shape, rate = (nu + 1) / 2, (nu + distances) / 2
    mean = float((psi(shape) - np.log(rate) - shape / rate).mean()) + 1

    def excess(log_nu: float) -> float:
        half = np.exp(log_nu) / 2
        return float(np.log(half) - psi(half)) + mean

    return float(np.exp(brentq(excess, -2, 12))) if excess(12) * excess(-2) < 0 else float(np.exp(12))
