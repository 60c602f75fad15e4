"""One number a column that says how much it tells about the outcome: the methods, with one signature.

A method that depends on ranks alone takes orders [p, n] (rows of each column, ascending) and an outcome; its value
under independence has the same law for every column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.kernels.dependence import mutual_information as information
from bntools.kernels.dependence.nearest import knn_class_information, knn_information
from bntools.kernels.dependence.rank_correlation import chatterjee
from bntools.kernels.dependence.rank_weights import RankWeights, bin_weights, kernel_weights, normal_scores
from bntools.tools.screen.outcome import Outcome
from bntools.tools.screen.settings import Settings

Orders = NDArray[np.int64]
Scores = NDArray[np.float64]
_WIDE = (
    2.0  # the second bandwidth of `auto`, in units of the first: of .7 to 2.8, most planted effects selected
)
_CLASS_BINS, _GRID_BINS = 6, 4


class Statistic(NamedTuple):
    """score: of orders [p, n] and an outcome. rounds: share of the permutations that it is fast enough for."""

    name: str
    score: Callable[[Orders, Outcome], Scores]
    rounds: float = 1.0


def rank_statistic(settings: Settings, outcome: Outcome) -> Statistic:
    """The method by its name. Raises BnError (exit 2) for xi with more than two classes."""
    makers = {"kde": _kernel, "auto": _kernel, "bins": _bins, "knn": _nearest, "xi": _chatterjee}
    if settings.method == "xi" and len(outcome.classes) > 2:
        raise usage(f"xi needs an order, and the target has {len(outcome.classes)} classes", "--method kde")
    return Statistic(settings.method, *makers[settings.method](settings))


def weighted_information(orders: Orders, outcome: Outcome, x: RankWeights, y: RankWeights | None) -> Scores:
    """Mutual information with these weights of the ranks; y: of a continuous outcome."""
    if y is None:
        return information.class_information(orders, outcome.codes, x)
    return information.grid_information(orders, outcome.codes, x, y)


def second_bandwidth(settings: Settings) -> Callable[[Orders, Outcome], Scores]:
    """The kernel information at the wider bandwidth, which `auto` takes beside the first."""
    return _kernel(settings, _WIDE)[0]


def outcome_weights(settings: Settings, outcome: Outcome) -> RankWeights | None:
    """Weights of the ranks of a continuous outcome, None for classes."""
    n = len(outcome.codes)
    if outcome.classes:
        return None
    if settings.method == "bins":
        return bin_weights(n, settings.bins or _GRID_BINS)
    return kernel_weights(n, settings.bandwidth)


def _kernel(settings: Settings, factor: float = 1.0) -> tuple[Callable[[Orders, Outcome], Scores], float]:
    def score(orders: Orders, outcome: Outcome) -> Scores:
        x = kernel_weights(orders.shape[1], settings.bandwidth * factor)
        return weighted_information(orders, outcome, x, None if outcome.classes else x)

    return score, 1.0


def _bins(settings: Settings) -> tuple[Callable[[Orders, Outcome], Scores], float]:
    def score(orders: Orders, outcome: Outcome) -> Scores:
        count = settings.bins or (_CLASS_BINS if outcome.classes else _GRID_BINS)
        x = bin_weights(orders.shape[1], count)
        return weighted_information(orders, outcome, x, None if outcome.classes else x)

    return score, 1.0


def _nearest(settings: Settings) -> tuple[Callable[[Orders, Outcome], Scores], float]:
    def score(orders: Orders, outcome: Outcome) -> Scores:
        scores = normal_scores(orders.shape[1])
        columns = np.empty(orders.shape)
        np.put_along_axis(columns, orders, np.broadcast_to(scores, orders.shape), 1)
        if outcome.classes:
            return knn_class_information(columns, outcome.codes, settings.neighbours)
        return knn_information(columns, scores[outcome.codes], settings.neighbours)

    return score, 0.05


def _chatterjee(settings: Settings) -> tuple[Callable[[Orders, Outcome], Scores], float]:
    return lambda orders, outcome: chatterjee(orders, outcome.values), 1.0
