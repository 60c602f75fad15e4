"""The size of model up to which a larger one beats more trials of a smaller one for the same cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Costed(Protocol):
    @property
    def parameters(self) -> int: ...
    @property
    def accuracy(self) -> Floats: ...
    @property
    def cost(self) -> Floats: ...


def size_threshold(choices: Sequence[Costed], weights: Floats) -> dict[str, Any] | None:
    """Parameters at which the gain of the next size changes sign, with a 95 % interval; None for fewer than two sizes.

    For each size and the next: at the cost of the larger one's cheapest choice, its accuracy less the best that the
    smaller one has for that cost. The gain is a line between the geometric means of neighbouring sizes; where it is
    above (below) zero everywhere the threshold is the largest (smallest) size and `bounded` says so.
    """
    sizes = sorted({choice.parameters for choice in choices})
    if len(sizes) < 2:
        return None
    accuracy = np.stack([choice.accuracy for choice in choices]) @ weights.T
    cost = np.stack([choice.cost for choice in choices]) @ weights.T
    of = np.array([choice.parameters for choice in choices])
    gains = np.stack([_gain(accuracy, cost, of, pair) for pair in pairwise(sizes)])
    logs = np.log(np.array(sizes, float))
    middles = (logs[1:] + logs[:-1]) / 2
    crossings = np.exp([crossing(middles, gain, logs) for gain in gains.T])
    low, high = np.quantile(crossings[1:], [0.025, 0.975]) if len(crossings) > 1 else (crossings[0],) * 2
    return {
        "value": float(crossings[0]), "low": float(low), "high": float(high),
        "bounded": bool(sizes[0] * 1.0001 < crossings[0] < sizes[-1] * 0.9999),
        "gains": [
            {"from": small, "to": large, "value": float(gain[0])}
            for (small, large), gain in zip(pairwise(sizes), gains, strict=True)
        ],
    }  # fmt: skip


def _gain(accuracy: Floats, cost: Floats, of: NDArray[np.int64], pair: tuple[int, int]) -> Floats:
    """Accuracy of the larger size's cheapest choice less the smaller size's best within that cost [resamples]."""
    small, large = (np.flatnonzero(of == size) for size in pair)
    cheapest = cost[large].argmin(0)
    column = np.arange(cost.shape[1])
    budget, reached = cost[large][cheapest, column], accuracy[large][cheapest, column]
    within = np.where(cost[small] <= budget, accuracy[small], 0.0)
    return reached - within.max(0)


def crossing(places: Floats, gains: Floats, sizes: Floats) -> float:
    """Where a line through the gains first falls to zero; the ends of the sizes where it does not, or is below."""
    if gains[0] <= 0:
        return float(sizes[0])
    for index in range(1, len(gains)):
        if gains[index] <= 0:
            share = gains[index - 1] / (gains[index - 1] - gains[index])
            return float(places[index - 1] + share * (places[index] - places[index - 1]))
    return float(sizes[-1])
