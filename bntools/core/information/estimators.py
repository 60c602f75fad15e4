"""Each estimator of mutual information under one signature, and the settings they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.core.information import copula
from bntools.core.information.corrected import QUERIES, corrected
from bntools.core.information.reference_entropy import reference_information, three_entropies
from bntools.core.information.variables import Variable
from bntools.kernels.information import histogram, kernel_matrices
from bntools.kernels.information.covariance import gaussian_information
from bntools.kernels.information.nearest_neighbour import kraskov, labelled_terms, mixed_terms
from bntools.kernels.information.neighbour_counts import TREE_WIDTH, Side

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_MOST_MATRIX_ROWS = 2000


@dataclass(frozen=True)
class Estimation:
    """estimator: `auto` or a name of ESTIMATORS; k: neighbours; bins: of `binning`; units: `nats` or `bits`.

    critic: whether `auto` also trains a critic, which may raise the figure.
    """

    estimator: str = "auto"
    k: int = 3
    bins: int = 30
    units: str = "nats"
    seed: int = 0
    interval: bool = True
    critic: bool = False

    def __post_init__(self) -> None:
        if self.estimator not in ("auto", *ESTIMATORS):
            raise usage(f"no estimator {self.estimator!r}", f"auto or one of {', '.join(ESTIMATORS)}")
        if self.critic and self.estimator != "auto":
            raise usage("a critic is trained beside --estimator auto alone", "leave out --estimator")


def standardized(points: Floats) -> Floats:
    return (points - points.mean(0)) / points.std(0)


def queries(count: int, width: int, rng: np.random.Generator) -> Indices | None:
    return (
        np.sort(rng.choice(count, QUERIES, replace=False)) if width > TREE_WIDTH and count > QUERIES else None
    )


def linear(x: Floats, y: Floats) -> float:
    """What linear correlation alone tells: the baseline."""
    return gaussian_information(np.cov(np.hstack([x, y]).T), x.shape[1], len(x) - 1)


def _codes(side: Variable, bins: int) -> Indices:
    return side.codes if side.codes is not None else histogram.codes(side.points, bins, "quantile")


def _matrix(
    x: Variable, y: Variable, rng: np.random.Generator, function: Callable[..., float], most: int
) -> float:
    rows = np.sort(rng.choice(len(x.points), min(most, len(x.points)), replace=False))
    first, second = standardized(x.points[rows]), standardized(y.points[rows])
    widths = kernel_matrices.median_distance(first), kernel_matrices.median_distance(second)
    return function(first, second, widths)


def _ross(x: Variable, y: Variable, settings: Estimation, rng: np.random.Generator) -> float:
    if y.codes is None:
        x, y = y, x
    if y.codes is None:
        raise usage("--estimator ross needs one side of labels", "--estimator auto")
    return float(labelled_terms(standardized(x.points), y.codes, settings.k)[0].mean())


ESTIMATORS: dict[str, Callable[[Variable, Variable, Estimation, np.random.Generator], float]] = {
    "ksg": lambda x, y, s, r: kraskov(standardized(x.points), standardized(y.points), s.k),
    "corrected": lambda x, y, s, r: corrected(x.points, y.points, k=s.k, rng=r).debiased,
    "t-copula": lambda x, y, s, r: copula.fit(x.points, y.points).information,
    "gaussian": lambda x, y, s, r: linear(x.points, y.points),
    "reference": lambda x, y, s, r: reference_information(x.points, y.points),
    "kl": lambda x, y, s, r: three_entropies(x.points, y.points),
    "weighted-kl": lambda x, y, s, r: three_entropies(x.points, y.points, weighted=True),
    "ross": _ross,
    "mixed": lambda x, y, s, r: float(
        mixed_terms(Side.of(standardized(x.points)), Side.of(standardized(y.points)), s.k)[0].mean()
    ),
    "binning": lambda x, y, s, r: histogram.discrete_information(_codes(x, s.bins), _codes(y, s.bins)),
    "cauchy-schwarz": lambda x, y, s, r: _matrix(x, y, r, kernel_matrices.cauchy_schwarz_information, 20_000),
    "renyi": lambda x, y, s, r: _matrix(x, y, r, kernel_matrices.renyi_information, _MOST_MATRIX_ROWS),
}
"""Estimators by name; auto chooses among the first five and ross, mixed and the plug-in by what the sides are."""

DEFAULT = Estimation()
