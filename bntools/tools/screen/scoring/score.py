"""Scores of a block of columns: ranks where there are no ties, bins where there are few values, rows where known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.dependence.fft_density import class_density_information, joint_information
from bntools.kernels.dependence.levels import levels
from bntools.kernels.dependence.rank_weights import normal_scores
from bntools.tools.screen.outcome import FEWEST, Outcome
from bntools.tools.screen.scoring.laws import Judged, Laws
from bntools.tools.screen.scoring.linear import correlations
from bntools.tools.screen.settings import Settings

Floats = NDArray[np.float64]

_MOST_LEVELS = 20  # distinct values up to which each is a bin of its own


class Scored(NamedTuple):
    """Of each column [p]: the score it is ranked by, the plain statistic, p-value, extrapolated or not, and the
    number of missing values and of distinct ones. A constant column, or one known on fewer than 10 rows, has score
    NaN."""

    score: Floats
    statistic: Floats
    p: Floats
    extrapolated: NDArray[np.bool_]
    missing: NDArray[np.int64]
    distinct: NDArray[np.int64]


class Scorer:
    """Scores columns against one outcome; safe to use from several threads."""

    def __init__(self, settings: Settings, outcome: Outcome, covariates: Floats | None = None) -> None:
        self.settings, self.outcome = settings, outcome
        self._basis = None if covariates is None else _basis(covariates)
        self.laws = None if settings.method in ("pearson", "fftkde") else Laws(settings, outcome)

    def score(self, columns: NDArray[Any]) -> Scored:
        """columns [p, n], contiguous, rows in the order of the outcome."""
        p, n = columns.shape
        if self._basis is not None:
            columns = self._residuals(columns)
        orders = np.argsort(columns, 1)
        valid, distinct = np.empty(p, np.int64), np.empty(p, np.int64)
        levels(columns, orders, valid, distinct)
        nan = np.full(p, np.nan)
        result = Scored(nan, nan.copy(), nan.copy(), np.zeros(p, bool), n - valid, distinct)
        usable = (distinct > 1) & (valid >= FEWEST)
        if self.laws is None:
            self._by_value(columns, usable, result)
            return result
        few = usable & (distinct <= _MOST_LEVELS) & (self.settings.method in ("auto", "kde", "bins"))
        whole = usable & ~few & (valid == n)
        if whole.any():
            _put(result, whole, self.laws.main.judge(orders if whole.all() else orders[whole], self.outcome))
        for index in np.flatnonzero(usable & ~whole).tolist():
            order = orders[index, : valid[index]]
            _put(result, index, self._single(columns[index], order, bool(few[index])))
        return result

    def shadow(self, columns: NDArray[Any], rows: NDArray[np.int64]) -> Floats:
        """Scores of the columns with their rows in another order: what the same data score when they say nothing."""
        return self.score(np.ascontiguousarray(columns[:, rows])).score

    def _single(self, x: NDArray[Any], order: NDArray[np.int64], few: bool) -> tuple[Judged, Floats]:
        laws, outcome = self.laws, self.outcome
        assert laws is not None
        if len(order) < len(x):
            rows = np.sort(order)
            outcome, order, x = outcome.subset(rows), np.searchsorted(rows, order), x[rows]
        if few:
            ordered = x[order]
            starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
            return laws.few_values(order, np.diff(np.append(starts, len(ordered))), outcome)
        return laws.for_rows(len(order)).judge(order[None], outcome)

    def _by_value(self, columns: NDArray[Any], usable: NDArray[np.bool_], result: Scored) -> None:
        if self.settings.method == "pearson":
            statistic, p = correlations(columns[usable].astype(np.float64), self.outcome)
            _put(result, usable, (Judged(np.abs(statistic), p, np.zeros(len(p), bool)), statistic))
            return
        for index in np.flatnonzero(usable).tolist():
            rows = ~np.isnan(columns[index])
            x, outcome = columns[index][rows].astype(np.float64), self.outcome.subset(rows)
            values = (
                class_density_information(x, outcome.codes)
                if outcome.classes
                else joint_information(x, outcome.values)
            )
            result.score[index] = result.statistic[index] = values

    def _residuals(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Normal scores less what covariates explain of them; a column with missing or few values is scored so, too."""
        assert self._basis is not None
        scores = ranks_to_scores(columns)
        known = ~np.isnan(scores)
        filled = np.where(known, scores, 0)
        residuals = filled - (filled @ self._basis) @ self._basis.T
        constant = np.ptp(filled, 1) == 0
        residuals[constant] = 0
        return np.where(known, residuals, np.nan)


def ranks_to_scores(columns: NDArray[Any]) -> Floats:
    """Normal scores of the mean rank of equal values in each column [p, n]; NaN stays."""
    result = np.full(columns.shape, np.nan)
    for row, x in zip(result, columns, strict=True):
        known = np.flatnonzero(~np.isnan(x))
        values, inverse, counts = np.unique(x[known], return_inverse=True, return_counts=True)
        if len(values) == 0:
            continue
        sums = np.add.reduceat(normal_scores(len(known)), np.concatenate([[0], np.cumsum(counts)[:-1]]))
        row[known] = (sums / counts)[inverse]
    return result


def _basis(covariates: Floats) -> Floats:
    """Orthonormal basis [n, c] of the constant and the covariates' normal scores [c, n]."""
    design = np.vstack([np.ones(covariates.shape[1]), ranks_to_scores(covariates)]).T
    q, r = np.linalg.qr(design)
    return q[:, np.abs(np.diag(r)) > 1e-8 * np.abs(r).max()]


def residual_outcome(values: Floats, covariates: Floats) -> Floats:
    """Normal scores of a continuous outcome less what the covariates explain."""
    basis = _basis(covariates)
    scores = ranks_to_scores(values[None])[0]
    return scores - basis @ (basis.T @ scores)


def _put(result: Scored, where: Any, judged: tuple[Judged, Floats]) -> None:
    (score, p, extrapolated), statistic = judged
    for target, values in zip(result, (score, statistic, p, extrapolated), strict=False):
        target[where] = values if not isinstance(where, int) else values[0]
