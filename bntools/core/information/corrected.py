"""Kraskov's estimate less the bias it has on a fitted model, or the model itself where neighbours see nothing else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.information import copula
from bntools.kernels.information.covariance import canonical
from bntools.kernels.information.nearest_neighbour import kraskov_terms
from bntools.kernels.information.neighbour_counts import TREE_WIDTH, Side, neighbour_counts

Floats = NDArray[np.float64]

QUERIES = 4000
"""Points measured where neighbours are searched by products: the mean of the differences then has an error of 0.01."""
_SURE = 2.0
"""Standard errors up to which the residual counts as noise; beyond, its share grows as 1 - (2 / z)^2."""

_UNBIASED = 4
"""Coordinates up to which Kraskov's bias is as small as that of its correction by a model that does not hold."""


class Corrected(NamedTuple):
    """model: the fitted copula; neighbours: Kraskov's own estimate; debiased: less its bias on draws
    of the model, in more than four coordinates.

    residual: what neighbours see beyond the model, with its standard error. value: the model's information, moved
    towards `debiased` as far as the residual is sure. `parts` are the canonical coordinates of the normal scores in
    which neighbours were searched.
    """

    value: float
    model: copula.Copula
    neighbours: float
    debiased: float
    residual: float
    error: float
    parts: tuple[Floats, Floats]

    @property
    def accepted(self) -> bool:
        """Whether neighbours cannot tell the data from draws of the model."""
        return abs(self.residual) <= _SURE * self.error


def corrected(x: Floats, y: Floats, *, k: int = 3, rng: np.random.Generator) -> Corrected:
    """Estimate of x [N, dx], y [N, dy] that is right where the t copula is, and Kraskov's where neighbours suffice.

    On data and on a draw from the model, the difference is taken of Kraskov's terms and the model's pointwise
    information (fitted anew on the draw, so that both fits flatter themselves alike). What the model explains cancels
    in it point by point, and with it most of the noise of both. The draw's mean difference is Kraskov's bias, once
    the dx dy / 2 N is added by which a fit to N rows flatters itself.
    """
    model = copula.fit(x, y)
    seen, observed, parts = _difference(x, y, model, k, rng)
    source, expected = copula.shrunk(model, len(x)), []
    for _ in range(2 if x.shape[1] + y.shape[1] <= TREE_WIDTH else 1):
        drawn = copula.draw(source, len(x), rng)
        expected.append(_difference(*drawn, copula.refit(*drawn, model), k, rng)[1])
    simulated = np.concatenate(expected)
    residual = float(observed.mean() - simulated.mean())
    error = float(np.sqrt(observed.var() / len(observed) + simulated.var() / len(simulated)))
    debiased = seen
    if x.shape[1] + y.shape[1] > _UNBIASED:
        debiased -= float(simulated.mean()) + x.shape[1] * y.shape[1] / (2 * len(x))
    share = max(0.0, 1 - (_SURE * error / residual) ** 2) if residual else 0.0
    value = model.information + share * (debiased - model.information)
    return Corrected(value, model, seen, debiased, residual, error, parts)


def _difference(
    x: Floats, y: Floats, model: copula.Copula, k: int, rng: np.random.Generator
) -> tuple[float, Floats, tuple[Floats, Floats]]:
    """Kraskov's estimate on canonical normal scores, its terms less the model's pointwise information, the scores."""
    first, second, _ = canonical(copula.normal_scores(x), copula.normal_scores(y))
    queries = None
    if first.shape[1] + second.shape[1] > TREE_WIDTH and len(x) > QUERIES:
        queries = np.sort(rng.choice(len(x), QUERIES, replace=False))
    counts = neighbour_counts(Side.of(first), Side.of(second), k, queries)
    terms = kraskov_terms(counts, len(x), k)
    explained = copula.pointwise(model)
    seen = float(terms.mean())
    return seen, terms - explained[counts.rows], (first, second)
