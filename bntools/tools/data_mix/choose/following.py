"""Which runs to make next: the batch knowledge gradient at the target size, per unit of cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.choose.decide import Question, sign
from bntools.tools.data_mix.choose.design import maximin
from bntools.tools.data_mix.choose.simplex import around, candidates
from bntools.tools.data_mix.laws import links
from bntools.tools.data_mix.laws.fitted import Fitted

Floats = NDArray[np.floating[Any]]

_SETTINGS = 8  # of the law's draws, evenly taken
_TARGETS = 120
_FAR, _NEAR = 24, 16  # candidates by maximin, and near the best mixture
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class Proposal(NamedTuple):
    """A run worth making: its mixture, size, expected gain at the target and cost."""

    weights: Floats
    n: float
    gain: float
    cost: float


class _Beliefs(NamedTuple):
    """About z at runs that could be made, then at targets, by setting: covariances, noise of the runs; and metrics."""

    cov: Floats
    noise: Floats
    value: Floats
    slope: Floats


def next_runs(fitted: Fitted, question: Question, best: Floats, count: int, *, least: float = 0.0) -> list[Proposal]:
    """The runs of most expected gain a unit of cost, one after the other as if those before had been made.

    The gain of a run is what it lowers the expected metric of the best mixture by, since after it another one may
    turn out to be best; results that say nothing new have none. Ends early where the gain falls to `least`.
    """
    runs, limits = fitted.runs, question.limits
    weights = _possible(fitted, question, best)
    n = np.repeat(runs.sizes, len(weights))
    weights = np.tile(weights, (len(runs.sizes), 1))
    cost = n * (weights @ limits.price)
    targets = _targets(fitted, question)
    beliefs = _beliefs(fitted, (weights, n), (targets, limits.sizes(targets, question.n)))
    proposals: list[Proposal] = []
    for _ in range(count):
        gain = _gains(beliefs, len(n), sign(runs.kind))
        pick = int(np.argmax(gain / cost))
        if gain[pick] <= max(least, 1e-12):
            break
        proposals.append(Proposal(weights[pick], float(n[pick]), float(gain[pick]), float(cost[pick])))
        beliefs = _after(beliefs, pick)
    return proposals


def _possible(fitted: Fitted, question: Question, best: Floats) -> Floats:
    runs, limits = fitted.runs, question.limits
    far = maximin(len(runs.sources), _FAR, limits)
    near = limits.applied(around(best, 0.4, _NEAR, question.seed), None)
    return np.vstack([far, near])


def _targets(fitted: Fitted, question: Question) -> Floats:
    """The mixtures that may turn out best: those of best expected metric."""
    limits = question.limits
    pool = limits.applied(candidates(len(fitted.runs.sources), question.seed), question.n)
    value = sign(fitted.runs.kind) * fitted.expected(pool, limits.sizes(pool, question.n))
    return pool[np.argsort(value, kind="stable")[:_TARGETS]]


def _beliefs(fitted: Fitted, runs: tuple[Floats, Floats], targets: tuple[Floats, Floats]) -> _Beliefs:
    some = np.linspace(0, len(fitted.draws.floor) - 1, _SETTINGS).astype(int)
    few = type(fitted.draws)(*(field[some] for field in fitted.draws))
    weights = np.vstack([runs[0], targets[0]])
    u, other = fitted.u(np.concatenate([runs[1], targets[1]])), fitted.inputs(weights)
    mean, root = fitted.law.joint(few, weights, u, other)
    cov = fitted.law.between(few, weights, u, other, root)
    kind, count = fitted.law.data.kind, len(runs[1])
    metric = links.backward(kind, mean, few.floor[:, None])
    slope = links.slope(kind, np.maximum(metric, few.floor[:, None] + 1e-12), few.floor[:, None])
    sd = np.exp(few.theta[:, 3])[:, None] * np.exp(-fitted.law.prior.decay * u[:count])
    noise = (sd * metric[:, :count] * slope[:, :count]) ** 2
    return _Beliefs(cov, noise, metric[:, count:].mean(0), 1 / slope[:, count:])


def _gains(beliefs: _Beliefs, runs: int, direction: float) -> Floats:
    """Expected fall [runs] of the best target's metric after one run, by Gauss-Hermite quadrature over its result."""
    cov, total = beliefs.cov, np.zeros(runs)
    index = np.arange(runs)
    deviation = np.sqrt(cov[:, index, index] + beliefs.noise)
    shift = cov[:, :runs, runs:] / deviation[:, :, None] * beliefs.slope[:, None, :] * direction
    value = direction * beliefs.value
    for node, weight in zip(_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum(), strict=True):
        total += weight * (value + node * shift).min(2).mean(0)
    return np.maximum(value.min() - total, 0)


def _after(beliefs: _Beliefs, pick: int) -> _Beliefs:
    """Beliefs when one run has been made, whatever its result: covariances do not depend on it."""
    column = beliefs.cov[:, :, pick]
    scale = column[:, pick] + beliefs.noise[:, pick]
    return beliefs._replace(cov=beliefs.cov - column[:, :, None] * column[:, None, :] / scale[:, None, None])
