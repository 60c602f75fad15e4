"""One law over mixture and size: a Gaussian process with slopes that are nearly common, averaged over its settings.

    z(p, N) = link(metric - c) = m0 + f0(p) + (m1 + f1(p)) t + noise
    t = (1 - exp(-g u)) / g,   u = ln(N / largest pilot)
    f0 ~ GP(0, s0^2 k), f1 ~ GP(0, s1^2 k),   k(p, p') = exp(-|sqrt p - sqrt p'|^2 / 2 l^2)

k is a Gaussian of Hellinger's distance: finite at the corners of the simplex, unlike log ratios, and unchanged where a
source is split into two equal ones. s1 is small by its prior: a slope of one mixture is then told by those of all
others, which is what a two-size extrapolation lacks. t slows down at the rate g: with g = 0 and c = 0 the law is a
power law in N, else curves level off, each at a floor of its own. c, g and the four scales are not point estimates: the
prediction is averaged over draws from their posterior, Jacobian of the link included.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import BnError
from bntools.tools.data_mix.laws import links

Floats = NDArray[np.floating[Any]]

_JITTER = 1e-10  # of the largest variance
_BURN_INS = 8
_RISE = 0.5  # of the median log density in a burn-in that asks for another
_REACH = 5.0  # standard deviations of the prior beyond which settings are not looked at
_M0 = 3.0  # standard deviation of the common level, integrated out


class Prior(NamedTuple):
    """Means and standard deviations of the logs of s0, s1, l and noise, of logit c / min, and of g (its size counts).

    Set on other problems than the documents quote: even and odd classes, designs from 100 on.
    """

    mean: tuple[float, ...] = (-0.7, -3.0, -0.7, -3.2, -0.5, 0.5)
    sd: tuple[float, ...] = (1.0, 1.0, 0.7, 1.0, 1.5, 0.35)
    decay: float = 0.3  # noise falls as N to minus this power
    slope: float = 0.0  # mean of the exponent of N
    common_slope: float = 0.5  # its standard deviation, integrated out
    paired: float = 0.4  # share of the noise's variance that the runs of one mixture have in common


class Data(NamedTuple):
    """weights [runs, sources], u [runs], metric [runs] and its kind; other [runs, k]: further inputs of the mean."""

    weights: Floats
    u: Floats
    metric: Floats
    kind: str
    other: Floats


class Draws(NamedTuple):
    """Settings [draws, 6] and, of each, what predicts: floor c, whitened data, Cholesky factor."""

    theta: Floats
    floor: Floats
    factor: Floats
    white: Floats


def distances(a: Floats, b: Floats) -> Floats:
    """Squared Hellinger distances [a, b] of mixtures."""
    a, b = np.sqrt(a), np.sqrt(b)
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0.0)


def covariance(
    theta: Floats, d2: Floats, sizes: tuple[Floats, Floats], *, inner: Floats, m1: float, group: Any = None
) -> Floats:
    """Prior covariance [draws, a, b] of z between points of sizes u [a] and v [b] with distances d2 [a, b].

    inner: covariance by further inputs [a, b]; m1: standard deviation of the common slope. group: where points share
    mixtures, the row and column of d2 of each.
    """
    s0, s1, length = np.exp(theta.T[:3])[:, :, None, None]
    result = np.exp(d2 * (-0.5 / length**2))
    if group is not None:
        result = result[:, group[:, None], group]
    product = slowed(theta, sizes[0])[:, :, None] * slowed(theta, sizes[1])[:, None, :]
    result *= s0**2 + s1**2 * product
    product *= m1**2
    result += product
    result += _M0**2 + inner
    return result


def slowed(theta: Floats, u: Floats) -> Floats:
    """t [draws, points] of u = ln(N / largest pilot)."""
    g = np.maximum(np.abs(theta[:, 5]), 1e-6)[:, None]
    return -np.expm1(-g * u) / g


def _noise(theta: Floats, data: Data, floor: Floats, prior: Prior) -> Floats:
    """Variances [draws, runs] of z: the noise is relative in the metric."""
    sd = np.exp(theta[:, 3])[:, None] * np.exp(-prior.decay * data.u)
    return (sd * data.metric * links.slope(data.kind, data.metric, floor)) ** 2


def floors(theta: Floats, data: Data) -> Floats:
    """c [draws, 1]: a share of the smallest metric; none for scores."""
    if data.kind == "score":
        return np.zeros((len(theta), 1))
    return (data.metric.min() / (1 + np.exp(-theta[:, 4])))[:, None]


def _whitened(k: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Lower factors L of covariances [draws, n, n], and L^-1 z [draws, n]: the last row of the factor of both.

    What rounding leaves indefinite is made definite.
    """
    n = k.shape[1]
    index = np.arange(n)
    both = np.zeros((len(k), n + 1, n + 1))
    both[:, :n, :n], both[:, n, :n], both[:, n, n] = k, z, 1e100
    largest = k[:, index, index].max(1)[:, None]
    for jitter in (_JITTER, 1e3 * _JITTER, 1e5 * _JITTER):
        both[:, index, index] += jitter * largest
        try:
            factor = np.linalg.cholesky(both)
        except np.linalg.LinAlgError:
            continue
        return factor[:, :n, :n], factor[:, n, :n]
    raise BnError("the covariance of the runs is singular", "are runs repeated with other metrics?")


class Law:
    """The joint law of one table of runs."""

    def __init__(self, data: Data, prior: Prior | None = None) -> None:
        self.data, self.prior = data, prior or Prior()
        mixtures, group = np.unique(data.weights, axis=0, return_inverse=True)
        self._group = group.reshape(-1)
        self._d2 = distances(mixtures, mixtures)
        self._inner = 4.0 * data.other @ data.other.T
        self._level = float(np.mean(links.forward(data.kind, data.metric)))
        self._same = (self._group[:, None] == self._group).astype(float)

    def evidence(self, theta: Floats) -> tuple[Floats, Draws]:
        """Log posterior density [draws] of settings up to a constant, and what predicts by each."""
        data, prior = self.data, self.prior
        score = (theta - np.array(prior.mean)) / np.array(prior.sd)
        outside = (np.abs(score) > _REACH).any(1)
        theta = np.array(prior.mean) + np.clip(score, -_REACH, _REACH) * np.array(prior.sd)
        floor = floors(theta, data)
        z = links.forward(data.kind, data.metric, floor) - self._level + prior.slope * slowed(theta, data.u)
        m1, group = prior.common_slope, self._group
        k = covariance(theta, self._d2, (data.u, data.u), inner=self._inner, m1=m1, group=group)
        noise = _noise(theta, data, floor, prior)
        if prior.paired:
            sd = np.sqrt(noise * prior.paired)
            k += sd[:, :, None] * sd[:, None, :] * self._same
            noise = noise * (1 - prior.paired)
        index = np.arange(len(data.u))
        k[:, index, index] += noise
        factor, white = _whitened(k, z)
        value = -0.5 * (white**2).sum(1) - np.log(factor[:, index, index]).sum(1)
        value += np.log(links.slope(data.kind, data.metric, floor)).sum(1)
        value = np.where(outside, -np.inf, value - 0.5 * (score**2).sum(1))
        return value, Draws(theta, floor[:, 0], factor, white)

    def sample(self, draws: int = 48, seed: int = 0, steps: int = 20, walkers: int = 32) -> Draws:
        """Settings from their posterior: an ensemble of walkers with stretch moves, begun at prior draws of weight.

        Stretches of `steps` steps are thrown away until one no longer raises the walkers' median density; then as many
        are kept.
        """
        rng = np.random.default_rng([seed, 71])
        start = np.array(self.prior.mean) + np.array(self.prior.sd) * rng.standard_normal(
            (8 * walkers, len(self.prior.mean))
        )
        value, _ = self.evidence(start)
        order = np.argsort(-value)[:walkers]
        walk = start[order], value[order]
        for _ in range(_BURN_INS):
            before = float(np.median(walk[1]))
            walk = self._walked(*walk, steps, rng)[-1]
            if np.median(walk[1]) < before + _RISE:
                break
        pool = np.concatenate([place for place, _ in self._walked(*walk, steps, rng)])
        chosen = pool[np.linspace(0, len(pool) - 1, draws).astype(int)]
        return self.evidence(chosen)[1]

    def _walked(
        self, place: Floats, value: Floats, steps: int, rng: np.random.Generator
    ) -> list[tuple[Floats, Floats]]:
        """Places [walkers, settings] and log densities after each step; each half moves along lines to the other."""
        half, dimensions, walked = len(place) // 2, place.shape[1], []
        for _ in range(steps):
            place, value = place.copy(), value.copy()
            for mine, other in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
                stretch = (1 + rng.random(half)) ** 2 / 2  # Goodman and Weare's, a = 2
                partner = place[other][rng.integers(half, size=half)]
                proposal = partner + stretch[:, None] * (place[mine] - partner)
                new, _ = self.evidence(proposal)
                better = (dimensions - 1) * np.log(stretch) + new - value[mine] > np.log(rng.random(half))
                place[mine] = np.where(better[:, None], proposal, place[mine])
                value[mine] = np.where(better, new, value[mine])
            walked.append((place, value))
        return walked

    def predict(self, draws: Draws, weights: Floats, u: Floats, other: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations [draws, points] of z without noise."""
        mean, root = self.joint(draws, weights, u, other)
        s0, s1 = np.exp(draws.theta.T[:2])[:, :, None]
        prior = (
            _M0**2
            + s0**2
            + (self.prior.common_slope**2 + s1**2) * slowed(draws.theta, u) ** 2
            + 4.0 * (other**2).sum(1)
        )
        return mean, np.sqrt(np.maximum(prior - (root**2).sum(1), 0.0))

    def joint(self, draws: Draws, weights: Floats, u: Floats, other: Floats) -> tuple[Floats, Floats]:
        """Means [draws, points] and L^-1 K(runs, points) [draws, runs, points], from which any covariance follows."""
        data = self.data
        d2, inner = distances(data.weights, weights), 4.0 * data.other @ other.T
        cross = covariance(draws.theta, d2, (data.u, u), inner=inner, m1=self.prior.common_slope)
        root = np.linalg.solve(draws.factor, cross)
        middle = self._level - self.prior.slope * slowed(draws.theta, u)
        return np.einsum("dn,dnp->dp", draws.white, root) + middle, root

    def between(self, draws: Draws, weights: Floats, u: Floats, other: Floats, root: Floats) -> Floats:
        """Covariances [draws, points, points] of z without noise, after the runs; root: from `joint`."""
        inner = 4.0 * other @ other.T
        d2 = distances(weights, weights)
        prior = covariance(draws.theta, d2, (u, u), inner=inner, m1=self.prior.common_slope)
        return prior - root.transpose(0, 2, 1) @ root
