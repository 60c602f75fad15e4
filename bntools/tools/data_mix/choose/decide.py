"""Which mixture to buy: the law's best within the limits, unless the best pilot cannot be told to be worse."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.choose.simplex import Limits, around, candidates
from bntools.tools.data_mix.laws.fitted import Fitted
from bntools.tools.data_mix.runs.runs import Runs

Floats = NDArray[np.floating[Any]]

_ROUNDS = ((0.3, 150), (0.1, 150), (0.03, 150))
"""Searches about the best mixture so far: spread of the factors, and mixtures tried."""

_ENOUGH = 4
"""Mixtures a source: with fewer, what the law preferred with .8 was worse than the best pilot in 5 of 160 designs of
MNIST and Fashion-MNIST, with .95 in none."""


class Question(NamedTuple):
    """n: the size asked for; None where a budget decides it. sizes: rows of each source [m], where they are known.

    level: probability content of intervals; confidence: the probability with which a mixture must beat the best pilot;
    None by the number of pilots, `needed`.
    """

    n: float | None
    limits: Limits
    sizes: Floats | None = None
    level: float = 0.9
    confidence: float | None = None
    seed: int = 0


class Answer(NamedTuple):
    """best, pilot: mixtures; rivals: others by name; draws: of the mean metric of best, pilot and rivals, in order.

    decision: `mixture` where it beats the best pilot with the question's confidence, else `best pilot`.
    """

    best: Floats
    pilot: Floats
    rivals: dict[str, Floats]
    n: Floats
    draws: Floats
    decision: str

    @property
    def chosen(self) -> int:
        """Row of what is recommended."""
        return 0 if self.decision == "mixture" else 1


def sign(kind: str) -> float:
    """1 where less is better, -1 where more is."""
    return -1.0 if kind == "score" else 1.0


def best_pilot(runs: Runs) -> Floats:
    """The mixture with the best mean metric among the runs of the largest size."""
    part = runs.at(runs.n == runs.n.max())
    mixtures, group = np.unique(part.weights, axis=0, return_inverse=True)
    value = np.bincount(group.reshape(-1), part.lower) / np.bincount(group.reshape(-1))
    return mixtures[int(np.argmin(sign(runs.kind) * value))]


def needed(runs: Runs) -> float:
    """The probability with which a mixture must beat the best pilot: more where few mixtures make the law too sure."""
    mixtures = len(np.unique(runs.weights, axis=0))
    return 0.8 if mixtures >= _ENOUGH * len(runs.sources) else 0.95


def decide(fitted: Fitted, question: Question) -> Answer:
    """The mixture of least expected metric, beside the best pilot and what a sceptic would take."""
    runs, limits = fitted.runs, question.limits
    limits.check(question.n)
    best = search(fitted, question)
    pilot, rivals = limits.applied(best_pilot(runs)[None], question.n)[0], baselines(fitted, question)
    points = np.stack([best, pilot, *rivals.values()])
    n = limits.sizes(points, question.n)
    draws = fitted.sample(points, n, question.seed)
    gain = sign(runs.kind) * (draws[:, 1] - draws[:, 0])
    confidence = needed(runs) if question.confidence is None else question.confidence
    sure = float((gain > 0).mean()) >= confidence
    return Answer(best, pilot, rivals, n, draws, "mixture" if sure else "best pilot")


def search(fitted: Fitted, question: Question) -> Floats:
    """The mixture of best expected metric: of all candidates, then of mixtures ever nearer to the best of them."""
    s = sign(fitted.runs.kind)
    pool = candidates(len(fitted.runs.sources), question.seed)
    pool = np.vstack([pool, np.unique(fitted.runs.weights, axis=0)])
    best = None
    for rank, (scale, count) in enumerate(((0.0, 0), *_ROUNDS)):
        if best is not None:
            pool = around(best, scale, count, question.seed + rank)
        pool = question.limits.applied(pool, question.n)
        n = question.limits.sizes(pool, question.n)
        best = pool[int(np.argmin(s * fitted.expected(pool, n)))]
    assert best is not None
    return best


def baselines(fitted: Fitted, question: Question) -> dict[str, Floats]:
    """What one would take without a law: uniform, proportional to the sources' sizes, the best single source."""
    m, limits = len(fitted.runs.sources), question.limits
    rivals = {"uniform": limits.applied(np.full((1, m), 1 / m), question.n)[0]}
    if question.sizes is not None:
        rivals["proportional"] = limits.applied((question.sizes / question.sizes.sum())[None], question.n)[0]
    single = limits.applied(np.eye(m), question.n)
    value = fitted.expected(single, limits.sizes(single, question.n))
    rivals["best_single"] = single[int(np.argmin(sign(fitted.runs.kind) * value))]
    return rivals
