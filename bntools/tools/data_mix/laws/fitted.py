"""The joint law of a table of runs, asked in the metric: expectations, draws that belong together, what is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.laws import links
from bntools.tools.data_mix.laws.joint import Data, Draws, Law, Prior
from bntools.tools.data_mix.runs.runs import Runs

Floats = NDArray[np.floating[Any]]
Inputs = Callable[[Floats], Floats]
"""Further inputs [k, columns] of mixtures [k, sources]."""

_NODES = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)])
_NODE_WEIGHTS = np.array([1, 4, 1]) / 6
_DRAWS, _EACH = 48, 40
_JITTER = 1e-10
_ASSUMED = 4.0  # predictions a largest size that was not left out counts for, when its misses widen the others
_FOLDS = 8


class Sampling(NamedTuple):
    """How the settings are averaged over."""

    draws: int = _DRAWS
    steps: int = 20
    seed: int = 0


def no_inputs(weights: Floats) -> Floats:
    """None."""
    return np.zeros((len(weights), 0))


class Fitted(NamedTuple):
    """A law, settings drawn from their posterior, and by how much intervals are widened."""

    runs: Runs
    law: Law
    draws: Draws
    inputs: Inputs
    scale: float
    slope: float | None

    def u(self, n: Floats | float) -> Floats:
        """ln(n / largest pilot)."""
        return np.log(np.asarray(n, float) / self.runs.n.max())

    def expected(self, weights: Floats, n: Floats) -> Floats:
        """The expected metric [k] (an accuracy as its error), over settings and what the runs leave open."""
        mean, sd = self._moments(weights, n)
        nodes = mean[:, :, None] + sd[:, :, None] * _NODES
        values = links.backward(self.law.data.kind, nodes, self.draws.floor[:, None, None])
        return (values @ _NODE_WEIGHTS).mean(0)

    def sample(self, weights: Floats, n: Floats, seed: int = 0) -> Floats:
        """Draws [48 x 40, k] of the metric at k points that belong together: differences of columns are meant."""
        u, other = self.u(n), self.inputs(weights)
        mean, root = self.law.joint(self.draws, weights, u, other)
        cov = self.law.between(self.draws, weights, u, other, root)
        index = np.arange(len(u))
        cov[:, index, index] += _JITTER + 1e-9 * cov[:, index, index]
        values, vectors = np.linalg.eigh(cov)
        factor = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        white = np.random.default_rng([seed, 41]).standard_normal((len(mean), len(u), _EACH))
        z = mean[:, :, None] + factor @ white
        metric = links.backward(self.law.data.kind, z, self.draws.floor[:, None, None])
        return self._widened(metric.transpose(0, 2, 1).reshape(-1, len(u)))

    def noisy(self, metric: Floats, n: Floats, seed: int = 0) -> Floats:
        """Draws of a new run's metric from those of its mean: what differs between two trainings is added."""
        sd = np.exp(self.draws.theta[:, 3])[:, None] * np.exp(-self.law.prior.decay * self.u(n))
        rng = np.random.default_rng([seed, 42])
        kind = self.law.data.kind
        z = _safe(kind, metric)
        relative = metric * links.slope(kind, np.minimum(metric, _top(kind)))
        return links.backward(kind, z + np.repeat(sd, _EACH, 0) * relative * rng.standard_normal(metric.shape))

    def _moments(self, weights: Floats, n: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations [draws, k] of z, a thousand mixtures at a time."""
        parts = []
        for start in range(0, len(weights), 1000):
            some = weights[start : start + 1000]
            parts.append(self.law.predict(self.draws, some, self.u(n[start : start + 1000]), self.inputs(some)))
        return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts], 1)

    def _widened(self, metric: Floats) -> Floats:
        if self.scale == 1:
            return metric
        z = _safe(self.law.data.kind, metric)
        middle = np.median(z, 0)
        return links.backward(self.law.data.kind, middle + self.scale * (z - middle))


def _top(kind: str) -> float:
    return 1 - 1e-12 if kind in ("error", "accuracy") else np.inf


def _safe(kind: str, metric: Floats) -> Floats:
    """z of metrics that may have been rounded to an end of their range."""
    return links.forward(kind, np.clip(metric, 1e-12, _top(kind)))


def fit(runs: Runs, inputs: Inputs = no_inputs, *, slope: float | None = None, sampling: Sampling = Sampling()) -> Fitted:
    """The joint law of the runs; slope: the exponent in N to assume where all are of one size."""
    law = Law(_data(runs, inputs), _prior(slope))
    draws = law.sample(sampling.draws, sampling.seed, sampling.steps)
    fitted = Fitted(runs, law, draws, inputs, 1.0, slope)
    return fitted._replace(scale=_scale(fitted, sampling)) if len(runs.sizes) > 2 else fitted


def _prior(slope: float | None) -> Prior:
    """What is believed before the runs; with a slope from the user, N enters by that alone, to within a tenth."""
    if slope is None:
        return Prior()
    usual = Prior()
    return usual._replace(
        slope=slope, common_slope=abs(slope) / 10, mean=(*usual.mean[:5], 0.0), sd=(*usual.sd[:5], 1e-3)
    )


def _data(runs: Runs, inputs: Inputs) -> Data:
    u = np.log(runs.n / runs.n.max())
    return Data(runs.weights, u, runs.lower, runs.kind, inputs(runs.weights))


def _scale(fitted: Fitted, sampling: Sampling) -> float:
    """By how much the largest size, predicted from the others, missed its intervals; 1 where it did not."""
    runs = fitted.runs
    largest = runs.n == runs.n.max()
    if largest.sum() < 3 or (~largest).sum() < 6:
        return 1.0
    rest = runs.at(~largest)
    law = Law(_data(rest, fitted.inputs), fitted.law.prior)
    before = fitted._replace(runs=rest, law=law, draws=law.sample(sampling.draws, sampling.seed, sampling.steps))
    weights, n = runs.weights[largest], runs.n[largest]
    drawn = before.noisy(before.sample(weights, n, sampling.seed), n, sampling.seed)
    z, truth = _safe(runs.kind, drawn), _safe(runs.kind, runs.lower[largest])
    score = float((((truth - z.mean(0)) / z.std(0)) ** 2).mean())
    return float(np.sqrt(max(1.0, (_ASSUMED + 4 * score) / (_ASSUMED + 4))))


def leave_out(fitted: Fitted) -> Floats:
    """The metric [runs] of each run by the law of the runs of other mixtures: the draws are kept, the data left out."""
    runs, result = fitted.runs, np.zeros(len(fitted.runs))
    for fold in folds(runs):
        rest = runs.at(~fold)
        law = Law(_data(rest, fitted.inputs)._replace(u=np.log(rest.n / runs.n.max())), fitted.law.prior)
        part = fitted._replace(law=law, draws=law.evidence(fitted.draws.theta)[1])
        result[fold] = part.expected(runs.weights[fold], runs.n[fold])
    return result


def folds(runs: Runs) -> list[NDArray[np.bool_]]:
    """Runs to leave out together: all of a mixture, mixtures in 8 groups at most."""
    _, group = np.unique(np.round(runs.weights, 9), axis=0, return_inverse=True)
    group = group.reshape(-1) % _FOLDS
    return [group == index for index in np.unique(group)]
