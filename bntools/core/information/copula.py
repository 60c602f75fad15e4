"""The t copula: a model of dependence that no monotone map of a column changes, its fit, its information, its draws."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import digamma, gammaln, ndtri, stdtrit

from bntools.kernels.information.covariance import gaussian_information

Floats = NDArray[np.float64]

_FREEDOMS = (50.0, 20.0, 10.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0)
NORMAL = math.inf
_GIVEN_UP = 0.02
"""Nats a point by which the likelihood may fall behind the best before smaller degrees of freedom are not tried."""


class Copula(NamedTuple):
    """Dispersion [P, P] of unit diagonal, degrees of freedom (inf: normal), x's width, and the information in nats.

    likelihood: mean ln density of the copula at the fit; scores [N, P]: the data as quantiles of the margins.
    """

    dispersion: Floats
    freedom: float
    width: int
    information: float
    likelihood: float
    scores: Floats


def ranks(x: Floats) -> Floats:
    """Each column's ranks in (0, 1); equal numbers share the mean of their ranks."""
    order = np.argsort(x, 0, kind="stable")
    ascending = np.take_along_axis(x, order, 0)
    out = np.empty(x.shape)
    steps = np.arange(0.5, len(x))
    for column in range(x.shape[1]):
        values = ascending[:, column]
        places = steps
        if (values[1:] == values[:-1]).any():
            _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
            places = (np.cumsum(counts) - counts / 2)[inverse]
        out[order[:, column], column] = places / len(x)
    return out


def normal_scores(x: Floats) -> Floats:
    """Each column as the normal quantiles of its ranks."""
    return ndtri(ranks(x))


def fit(x: Floats, y: Floats) -> Copula:
    """The t copula of greatest likelihood for x [N, dx] and y [N, dy].

    The normal one is taken unless another is better by the Bayesian criterion.
    """
    levels = np.hstack([ranks(x), ranks(y)])
    count, width = len(levels), x.shape[1]
    best = _at(levels, NORMAL, np.eye(levels.shape[1]))
    start, tried = best.dispersion, {0.0: best.likelihood}
    for freedom in _FREEDOMS:
        level = _at(levels, freedom, start)
        start = level.dispersion
        tried[1 / freedom] = level.likelihood
        if level.likelihood > best.likelihood + math.log(count) / 2 / count:
            best = level
        elif level.likelihood < best.likelihood - _GIVEN_UP:
            break
    freedom = _peak(tried, 1 / best.freedom)
    if freedom != best.freedom:
        best = _at(levels, freedom, best.dispersion)
    return best._replace(width=width, information=information(best, width, count))


def refit(x: Floats, y: Floats, model: Copula) -> Copula:
    """The copula of the same degrees of freedom fitted to other data."""
    levels = np.hstack([ranks(x), ranks(y)])
    level = _at(levels, model.freedom, model.dispersion)
    return level._replace(width=model.width, information=information(level, model.width, len(x)))


def information(model: Copula, width: int, count: int) -> float:
    """Mutual information of the model: of its dispersion, less the bias of `count` rows, and of its scale."""
    total = gaussian_information(model.dispersion, width, count - 1)
    return total + student_excess(model.freedom, width, len(model.dispersion) - width)


def student_excess(freedom: float, x: int, y: int) -> float:
    """What the common scale of a multivariate t adds to the information of its dispersion matrix, in nats.

    f(v) + f(v + m + n) - f(v + m) - f(v + n) with f(v) = ln Gamma(v / 2) - (v / 2) psi(v / 2), m and n the dimensions.
    """
    if math.isinf(freedom):
        return 0.0

    def f(v: float) -> float:
        return float(gammaln(v / 2) - v / 2 * digamma(v / 2))

    return f(freedom) + f(freedom + x + y) - f(freedom + x) - f(freedom + y)


def pointwise(model: Copula) -> Floats:
    """ln density ratio of joint and product of the two parts, at each row of the model's scores."""
    width = model.width
    parts = (slice(None), slice(width), slice(width, None))
    joint, x, y = (
        _log_density(model.scores[:, part], model.dispersion[part, part], model.freedom) for part in parts
    )
    return joint - x - y


def quantiles(levels: Floats, freedom: float) -> Floats:
    """Ranks in (0, 1) as quantiles of the t distribution of these degrees of freedom."""
    return ndtri(levels) if math.isinf(freedom) else stdtrit(freedom, levels)


def pointwise_at(model: Copula, levels: Floats) -> Floats:
    """`pointwise` at rows of levels [N, P] that need not be those of the fit."""
    return pointwise(model._replace(scores=quantiles(levels, model.freedom)))


def draw(model: Copula, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """x and y of `count` rows from the model, with margins of t."""
    z = rng.standard_normal((count, len(model.dispersion))) @ np.linalg.cholesky(model.dispersion).T
    if not math.isinf(model.freedom):
        z *= np.sqrt(model.freedom / rng.chisquare(model.freedom, (count, 1)))
    return z[:, : model.width], z[:, model.width :]


def shrunk(model: Copula, count: int) -> Copula:
    """The model with x and y correlated so much less that it has the information estimated, not that of its fit.

    A fit to `count` rows correlates x and y by chance, too: draws from it would carry that as true information.
    """
    width, target = model.width, information(model, model.width, count)
    excess = student_excess(model.freedom, width, len(model.dispersion) - width)
    blocks = (model.dispersion[:width, :width], model.dispersion[width:, width:])
    parts = sum(np.linalg.slogdet(block)[1] for block in blocks)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        plain = (parts - np.linalg.slogdet(_weakened(model, middle))[1]) / 2
        low, high = (middle, high) if plain + excess < target else (low, middle)
    return model._replace(dispersion=_weakened(model, high))


def _weakened(model: Copula, share: float) -> Floats:
    dispersion = model.dispersion.copy()
    dispersion[: model.width, model.width :] *= share
    dispersion[model.width :, : model.width] *= share
    return dispersion


def _at(levels: Floats, freedom: float, start: Floats) -> Copula:
    """Fit of the dispersion at fixed degrees of freedom: reweighted scatter of unit diagonal, from `start`."""
    count, width = levels.shape
    if math.isinf(freedom):
        scores = ndtri(levels)
        dispersion = _unit(scores.T @ scores)
    else:
        scores, dispersion = stdtrit(freedom, levels), start
        for _ in range(6 if freedom < 5 else 3):
            weights = (freedom + width) / (freedom + _squares(scores, dispersion))
            dispersion = _unit((scores * weights[:, None]).T @ scores)
    likelihood = _log_density(scores, dispersion, freedom).mean()
    margins = _log_density(scores.reshape(-1, 1), np.eye(1), freedom).sum() / count
    return Copula(dispersion, freedom, 0, 0.0, float(likelihood - margins), scores)


def _peak(tried: dict[float, float], best: float) -> float:
    """Degrees of freedom at the top of a parabola in 1 / freedom through the best of the grid and its neighbours."""
    grid = sorted(tried)
    place = grid.index(best)
    if best == 0 or place + 1 == len(grid):
        return 1 / best if best else NORMAL
    at = np.array(grid[place - 1 : place + 2]) - best
    curve = np.polyfit(at, [tried[best + step] for step in at], 2)
    if curve[0] >= 0:
        return 1 / best
    return 1 / (best + float(np.clip(-curve[1] / (2 * curve[0]), at[0] / 2, at[2] / 2)))


def _unit(scatter: Floats) -> Floats:
    scale = 1 / np.sqrt(np.diag(scatter))
    return scatter * scale * scale[:, None]


def _squares(scores: Floats, dispersion: Floats) -> Floats:
    """z' S^-1 z of each row."""
    factor = np.linalg.cholesky(dispersion)
    return np.square(solve_triangular(factor, scores.T, lower=True, check_finite=False)).sum(0)


def _log_density(scores: Floats, dispersion: Floats, freedom: float) -> Floats:
    """ln density of the multivariate t (or normal) of this dispersion."""
    width = len(dispersion)
    factor = np.linalg.cholesky(dispersion)
    squares = np.square(solve_triangular(factor, scores.T, lower=True, check_finite=False)).sum(0)
    volume = np.log(np.diag(factor)).sum()
    if math.isinf(freedom):
        return -0.5 * (squares + width * math.log(2 * math.pi)) - volume
    constant = gammaln((freedom + width) / 2) - gammaln(freedom / 2) - width / 2 * math.log(freedom * math.pi)
    return constant - volume - (freedom + width) / 2 * np.log1p(squares / freedom)
