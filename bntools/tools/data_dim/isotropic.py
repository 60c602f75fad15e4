"""What nearest-neighbour statistics are on spheres, balls and Gaussians of n points, by quadrature."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, digamma, gammainccinv

Floats = NDArray[np.float64]

_RADII = 12
_QUANTILES = 16
_STEPS = 1200


def expected_log_distances(family: str, dimension: float, count: int, k: int) -> Floats:
    """Expected logarithm of the distance to the 1st, ..., k-th of `count` - 1 others [k], up to a constant.

    From a point of a family the others are independent, and lie within r with probability F(r). So F(r_j) is the
    j-th of count - 1 ordered uniforms, Beta(j, count - j), and E ln r_j = E ln F^-1(U_j): no simulation, any count.
    The points' own place is averaged over by 12 Gauss-Legendre nodes in probability, U_j over 16. `dimension` is at
    least 1 and need not be whole. Raises KeyError for an unknown family.
    """
    nodes, weights = _legendre(_QUANTILES)
    ranks = np.arange(1, k + 1)[:, None]
    uniform = np.log(betaincinv(ranks, count - ranks, nodes))
    places, share = _legendre(_RADII) if family != "sphere" else (np.array([0.5]), np.array([1.0]))
    total = np.zeros(k)
    for place, part in zip(places, share, strict=True):
        log_r, log_f = _distribution(family, dimension, float(place))
        # ln r = ln F / d + a slowly varying rest: the first has an exact mean, the rest is interpolated
        rest = np.interp(uniform, log_f, log_r - log_f / dimension)
        total += part * (rest @ weights)
    return total + (digamma(ranks[:, 0]) - digamma(count)) / dimension


def _distribution(family: str, dimension: float, place: float) -> tuple[Floats, Floats]:
    """ln r and ln F(r) of the distance from the point at a quantile of the radius: dF / dr ~ r^(d-1) A(r)."""
    reach, density = FAMILIES[family](dimension, place)
    # from the whole mass down to 1e-20 of it, far below 1 / n; `reach` is some 2 sqrt(d) powers of e beyond the bulk
    span = 60 + 8 * np.sqrt(dimension)
    log_r = np.log(reach) - np.linspace(span / dimension, 0, _STEPS)
    log_r[-1] -= 1e-12
    terms = dimension * log_r + density(np.exp(log_r))
    pairs = np.logaddexp(terms[1:], terms[:-1])
    start = terms[0] - np.log(dimension) - np.log((log_r[1] - log_r[0]) / 2)
    log_f = np.logaddexp.accumulate(np.r_[start, pairs])
    return log_r, log_f - log_f[-1]


def _sphere(dimension: float, place: float) -> tuple[float, Callable[[Floats], Floats]]:
    """The unit d-sphere: chords. The pole of d = 1 at r = 2 is cut off; it changes only the constant."""
    reach = min(2.0, np.sqrt(2 + 2 * _deviations(dimension) / np.sqrt(dimension)))
    return reach, lambda r: (dimension / 2 - 1) * np.log(np.maximum(1 - r * r / 4, 1e-4))


def _ball(dimension: float, place: float) -> tuple[float, Callable[[Floats], Floats]]:
    """The unit d-ball, uniform: A(r) is the share of directions that stay inside."""
    radius = place ** (1 / dimension)

    def density(r: Floats) -> Floats:
        cosine = np.clip((1 - radius**2 - r * r) / (2 * radius * r), -1, 1)
        half = max((dimension - 1) / 2, 1e-9)
        return np.log(np.maximum(betainc(half, half, (1 + cosine) / 2), 1e-300))

    reach = min(1 + radius, np.sqrt(1 + radius**2 + 2 * radius * _deviations(dimension) / np.sqrt(dimension)))
    return reach, density


def _gaussian(dimension: float, place: float) -> tuple[float, Callable[[Floats], Floats]]:
    """The standard d-dimensional Gaussian: A(r) = exp(-r^2 / 2) times the mean of exp(-r rho c) over directions."""
    square = 2 * float(gammainccinv(dimension / 2, 1 - place))
    cosines, weights = _directions(dimension)

    def density(r: Floats) -> Floats:
        powers = -np.outer(r * np.sqrt(square), cosines)
        powers += np.log(np.maximum(weights, 1e-300))
        largest = powers.max(1)
        return -r * r / 2 + largest + np.log(np.exp(powers - largest[:, None]).sum(1))

    spread = np.sqrt(2 * dimension + 4 * square)
    reach = np.sqrt(square + dimension + _deviations(dimension) * spread)
    return float(reach), density


FAMILIES: dict[str, Callable[[float, float], tuple[float, Callable[[Floats], Floats]]]] = {
    "sphere": _sphere,
    "ball": _ball,
    "gaussian": _gaussian,
}


def _deviations(dimension: float) -> float:
    """Standard deviations of a squared distance beyond its mean at which hardly any mass is left."""
    return float(4 + 4 / np.sqrt(dimension))


@functools.lru_cache(maxsize=64)
def _directions(dimension: float, count: int = 64) -> tuple[Floats, Floats]:
    """Gauss-Gegenbauer nodes and weights of one coordinate of a uniform direction (Golub and Welsch 1969)."""
    order, shape = np.arange(1, count), dimension / 2 - 1
    below = (order + shape) * (order + shape - 1)
    ratio = np.divide(order * (order + 2 * shape - 1), below, out=np.full(count - 1, 2.0), where=below != 0)
    off = 0.5 * np.sqrt(np.maximum(ratio, 0))
    values, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    return values, vectors[0] ** 2


def _legendre(count: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
