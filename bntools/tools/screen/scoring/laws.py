"""Scores with p-values: a statistic together with its law under independence, for so many rows and such an outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.dependence.rank_weights import RankWeights, group_weights
from bntools.tools.screen.outcome import Outcome
from bntools.tools.screen.scoring.kept import canonical, kept
from bntools.tools.screen.scoring.null import Null, fit_null, permuted
from bntools.tools.screen.scoring.statistics import (
    Orders,
    Scores,
    outcome_weights,
    rank_statistic,
    second_bandwidth,
    weighted_information,
)
from bntools.tools.screen.settings import Settings

_FEW = 5000  # permutations of laws beside the main one


class Judged(NamedTuple):
    """Scores of columns [p]: the statistic, its p-value, and whether that was extrapolated."""

    score: Scores
    p: Scores
    extrapolated: NDArray[np.bool_]


class RankLaw:
    """A rank statistic of columns without ties among `n` rows; `auto`: the larger of two kernels' standard scores."""

    def __init__(
        self, settings: Settings, outcome: Outcome, rounds: int, *, key: int, keep: bool = False
    ) -> None:
        self.n = len(outcome.codes)
        if settings.method != "xi":  # which looks at equal values of the outcome, too
            outcome = canonical(outcome)
        statistic = rank_statistic(settings, outcome)
        rounds = max(200, int(rounds * statistic.rounds))
        self._scores = [statistic.score]
        if settings.method == "auto":
            self._scores.append(second_bandwidth(settings))
        self._moments = [(0.0, 1.0)]
        self._power = {"knn": 0.0, "xi": 0.5}.get(settings.method, 1.0)

        def both(orders: Orders) -> Scores:
            return np.stack([score(orders, outcome) for score in self._scores], 1)

        def draw() -> Scores:
            return permuted(both, self.n, rounds, np.random.default_rng([settings.seed, key]))

        keep = keep and settings.method != "xi"
        values = kept(settings, outcome, rounds, draw) if keep else draw()
        if len(self._scores) > 1:
            self._moments = [(float(v.mean()), float(v.std())) for v in values.T]
        self.null: Null = fit_null(self._joined(list(values.T)))

    def judge(self, orders: Orders, outcome: Outcome) -> tuple[Judged, Scores]:
        """Columns with nearly as many rows as the law's, and the first statistic of each as it is."""
        factor = (orders.shape[1] / self.n) ** self._power
        values = [score(orders, outcome) for score in self._scores]
        joined = self._joined([value * factor for value in values])
        return Judged(joined, *self.null.p_values(joined)), values[0]

    def _joined(self, values: list[Scores]) -> Scores:
        if len(values) == 1:
            return values[0]
        return np.max([(v - m) / s for v, (m, s) in zip(values, self._moments, strict=True)], 0)


class Laws:
    """The laws that columns with missing values or few distinct ones need, made when the first such column comes.

    The law for m rows is that of the nearest size in steps of 2 %; that for few distinct values has counts rounded to
    quarters of an octave. A law's random orders depend on the seed and on what the law is for, not on when it is made.
    """

    def __init__(self, settings: Settings, outcome: Outcome) -> None:
        self.settings, self.outcome = settings, outcome
        self.main = RankLaw(settings, outcome, settings.permutations or _FEW, key=1, keep=True)
        self._cache: dict[tuple[int, ...], RankLaw | Null] = {}
        self._lock = threading.Lock()

    def for_rows(self, n: int) -> RankLaw:
        """The law of columns that are known on n rows."""
        size = min(len(self.outcome.codes), round(1.02 ** round(np.log(n) / np.log(1.02))))
        if size == len(self.outcome.codes):
            return self.main

        def make() -> RankLaw:
            rng = np.random.default_rng([self.settings.seed, 2, size])
            rows = np.sort(rng.permutation(len(self.outcome.codes))[:size])
            return RankLaw(self.settings, self.outcome.subset(rows), _FEW, key=size + 2)

        return self._cached((size,), make)  # type: ignore[return-value]

    def few_values(
        self, order: NDArray[np.int64], counts: NDArray[np.int64], outcome: Outcome
    ) -> tuple[Judged, Scores]:
        """A column whose sorted values stand `counts` times each; each value is a bin."""
        y = outcome_weights(self.settings, outcome)
        information = weighted_information(order[None], outcome, group_weights(counts), y)
        null: Null = self._cached(
            (-1, *_rounded(counts)), lambda: self._null_of_counts(_rounded(counts), outcome)
        )  # type: ignore[assignment]
        return Judged(information, *null.p_values(information)), information

    def _null_of_counts(self, counts: tuple[int, ...], outcome: Outcome) -> Null:
        x: RankWeights = group_weights(np.array(counts))
        n = sum(counts)
        rng = np.random.default_rng([self.settings.seed, 3, *counts])
        if n != len(outcome.codes):
            n = min(n, len(outcome.codes))
            outcome = outcome.subset(np.sort(rng.permutation(len(outcome.codes))[:n]))
            x = RankWeights(x.first[:n], x.weight[:n], x.points, x.entropy)
        y = outcome_weights(self.settings, outcome)
        return fit_null(permuted(lambda o: weighted_information(o, outcome, x, y), n, _FEW, rng))

    def _cached(self, key: tuple[int, ...], make: Callable[[], RankLaw | Null]) -> RankLaw | Null:
        with self._lock:
            if key not in self._cache:
                self._cache[key] = make()
            return self._cache[key]


def _rounded(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """Counts in descending order rounded to quarters of an octave, the largest so that their sum stays."""
    ordered = np.sort(counts)[::-1]
    rest = [max(1, round(2 ** (round(4 * np.log2(c)) / 4))) for c in ordered[1:].tolist()]
    return (max(1, int(ordered.sum()) - sum(rest)), *rest)
