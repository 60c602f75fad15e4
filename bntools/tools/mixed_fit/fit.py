"""The whole fit: the law asked for, the Gaussian one beside it, and the regression without random effects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.mixed_fit import gaussian
from bntools.tools.mixed_fit.data import MixedData
from bntools.tools.mixed_fit.gaussian import Products, Solution
from bntools.tools.mixed_fit.intervals import SpreadInterval, log_intervals
from bntools.tools.mixed_fit.power_law import Groups, Point, climb, conjugate_gradient, ecme
from bntools.tools.mixed_fit.profile import NuProfile, profile_nu
from bntools.tools.mixed_fit.rows import fit_rows
from bntools.tools.mixed_fit.settings import Settings

Floats = NDArray[np.float64]
_START_NU = 10.0


class Fitted(NamedTuple):
    """One law's fit: deviance (None for `row`, whose likelihood is not computed), fixed effects with covariance, the
    triangle T of each term and s, modes of the random effects, weights of groups or rows, nu with its profile."""

    deviance: float | None
    beta: Floats
    covariance: Floats
    triangles: list[Floats]
    sigma: float
    effects: list[Floats]
    spreads: list[SpreadInterval] | None = None
    weights: Floats | None = None
    distances: Floats | None = None
    nu: float | None = None
    profile: NuProfile | None = None
    iterations: int = 0


class Fits(NamedTuple):
    """The fit asked for, the Gaussian one by maximum likelihood or REML, and plain least squares."""

    asked: Fitted
    gaussian: Fitted
    plain: Solution


def mixed_fit(data: MixedData, settings: Settings) -> Fits:
    """Fit the model. Raises BnError: exit 2 for --tails q with several terms, 1 where there is no finite optimum."""
    products = Products(data)
    theta = gaussian.fit(products, gaussian.start(data), settings.reml)
    normal = _gaussian(data, settings, products, theta)
    plain = products.solve(np.zeros_like(theta), settings.reml)
    if settings.tails == "q":
        return Fits(_power_law(data, settings, normal), normal, plain)
    if settings.tails == "row":
        return Fits(_rows(data, settings, theta), normal, plain)
    return Fits(normal, normal, plain)


def _ordered(products: Products, theta: Floats) -> list[Floats]:
    triangles = products.triangles(theta)
    return [triangles[products.order.index(t)] for t in range(len(triangles))]


def _gaussian(data: MixedData, settings: Settings, products: Products, theta: Floats) -> Fitted:
    solution = products.solve(theta, settings.reml)
    triangles = _ordered(products, theta)

    def deviance(value: Floats, log_sigma: float) -> float:
        best = products.solve(value, settings.reml, only_deviance=True)
        free = products.n - (products.p if settings.reml else 0)
        ratio = (
            best.sigma**2 / free / np.exp(2 * log_sigma)
        )  # its sigma is the root of the penalised residual
        return best.deviance + free * (ratio - 1 - np.log(ratio))

    spreads = log_intervals(deviance, theta, triangles, solution.sigma, settings.level)
    return Fitted(
        solution.deviance, solution.beta, solution.covariance, triangles, solution.sigma, solution.effects, spreads
    )  # fmt: skip


def _power_law(data: MixedData, settings: Settings, normal: Fitted) -> Fitted:
    groups = Groups(data)
    start = Point(normal.beta, normal.triangles[0], normal.sigma, settings.nu or _START_NU)
    point, iterations = start, 0
    fixed = settings.nu is not None
    if settings.solver == "bfgs":
        point = climb(groups, start, fixed_nu=fixed)
    elif settings.solver == "ecme":
        point, iterations = ecme(groups, start, fixed_nu=fixed)
    else:
        point, iterations = conjugate_gradient(groups, start, fixed_nu=fixed, l1=settings.l1)
    slope = groups.slope(point)
    profile = None if fixed or settings.l1 else profile_nu(groups, point, settings.level)
    covariance = np.linalg.inv(groups.information(point))
    triangle = point.triangle * np.where(np.diag(point.triangle) < 0, -1.0, 1.0)
    return Fitted(
        -2 * slope.value, point.beta, covariance, [triangle], point.sigma, [groups.effects(point)], None,
        slope.weights, slope.distances, point.nu, profile, iterations,
    )  # fmt: skip


def _rows(data: MixedData, settings: Settings, theta: Floats) -> Fitted:
    fit = fit_rows(data, theta, settings.nu)
    solution = fit.solution
    triangles = _ordered(Products(data), fit.theta)
    return Fitted(
        None, solution.beta, solution.covariance, triangles, solution.sigma, solution.effects, None,
        fit.weights, None, fit.nu, None, fit.rounds,
    )  # fmt: skip
