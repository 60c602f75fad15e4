"""projektor (arXiv 2307.02460): a quadratic in the weights times the transport distance, extrapolated by two sizes.

    L_N(p) = sum_i (b2_i p_i^2 + b1_i p_i + b0_i) OT(p) + sum_i (c2_i p_i^2 + c1_i p_i + c0_i)
    L_N(p) = (ln(N / N0) L_N1(p) - ln(N / N1) L_N0(p)) / ln(N1 / N0)

The notebook published with it fits accuracy, leaves out half of the squares, computes the gradient at N and steps along
that at N0, and projects on no simplex; here the equations are taken as the paper writes them. The constants of each
sum are one number, and the linear part of the last source is told by the others: columns that say nothing are dropped
by the least squares of smallest norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.tools.data_mix.runs.runs import Runs

Floats = NDArray[np.floating[Any]]

Distance = Callable[[Floats], tuple[Floats, Floats]]
"""Transport distances [k] of mixtures [k, sources] to the validation data, and their gradients [k, sources]."""

_STARTS, _STEPS = 20, 300


def columns(weights: Floats, distance: Floats | None) -> Floats:
    """The columns of stage 1 [k, parameters]: squares, weights and a constant, and the same times the distance."""
    plain = np.hstack([weights**2, weights, np.ones((len(weights), 1))])
    return plain if distance is None else np.hstack([plain * distance[:, None], plain])


class Projektor(NamedTuple):
    """Coefficients at the two largest sizes, and the distance they multiply (None: the table of runs alone)."""

    sizes: tuple[float, float]
    coefficients: tuple[Floats, Floats]
    distance: Distance | None

    def predict(self, weights: Floats, n: float) -> Floats:
        """The metric [k] at size n."""
        distance = None if self.distance is None else self.distance(weights)[0]
        first, second = (columns(weights, distance) @ c for c in self.coefficients)
        return _extrapolated(first, second, self.sizes, n)

    def gradient(self, weights: Floats, n: float) -> Floats:
        """Its derivative [k, sources] by the weights, along the simplex: the mean over sources, weighted, is 0."""
        distance = None if self.distance is None else self.distance(weights)
        first, second = (_slopes(weights, distance, c) for c in self.coefficients)
        slope = _extrapolated(first, second, self.sizes, n)
        return slope - (weights * slope).sum(1, keepdims=True)

    def descend(self, n: float, sources: int, seed: int = 0) -> Floats:
        """The mixture of least predicted metric by mirror descent, p <- p exp(-eta g) / Z, from 20 starts."""
        rng = np.random.default_rng(seed)
        p = np.vstack([np.full(sources, 1 / sources), rng.dirichlet(np.ones(sources), _STARTS - 1)])
        value, eta = self.predict(p, n), np.full(len(p), 1.0)
        for _ in range(_STEPS):
            step = -eta[:, None] * self.gradient(p, n)
            moved = p * np.exp(step - step.max(1, keepdims=True))
            moved /= moved.sum(1, keepdims=True)
            new = self.predict(moved, n)
            better = new < value
            p, value = np.where(better[:, None], moved, p), np.where(better, new, value)
            eta = np.where(better, np.minimum(eta * 1.5, 1e3), eta / 3)
        return p[int(np.argmin(value))]


def fit(runs: Runs, distance: Distance | None = None) -> Projektor:
    """Stage 1 at each of the two largest sizes. Raises BnError (exit 3) where there is one size only."""
    sizes = runs.sizes[-2:]
    if len(sizes) < 2:
        raise bad_input("projektor needs runs at two sizes", "--method joint --slope VALUE takes one")
    stages = []
    for size in sizes:
        part = runs.at(runs.n == size)
        d = None if distance is None else distance(part.weights)[0]
        stages.append(np.linalg.lstsq(columns(part.weights, d), part.lower, rcond=1e-10)[0])
    return Projektor((float(sizes[0]), float(sizes[1])), (stages[0], stages[1]), distance)


def _extrapolated(first: Floats, second: Floats, sizes: tuple[float, float], n: float) -> Floats:
    """Stage 2: linear in ln N through both sizes."""
    low, high = np.log(sizes)
    return ((np.log(n) - low) * second - (np.log(n) - high) * first) / (high - low)


def _slopes(weights: Floats, distance: tuple[Floats, Floats] | None, coefficients: Floats) -> Floats:
    """dL / dp_i = (sum_j b2_j p_j^2 + b1_j p_j + b0) dOT/dp_i + (2 b2_i p_i + b1_i) OT + 2 c2_i p_i + c1_i."""
    m = weights.shape[1]

    def polynomial(c: Floats) -> tuple[Floats, Floats]:
        return weights**2 @ c[:m] + weights @ c[m : 2 * m] + c[-1], 2 * weights * c[:m] + c[m : 2 * m]

    if distance is None:
        return polynomial(coefficients)[1]
    scale, b = polynomial(coefficients[: 2 * m + 1])
    _, c = polynomial(coefficients[2 * m + 1 :])
    value, gradient = distance
    return scale[:, None] * gradient + b * value[:, None] + c
