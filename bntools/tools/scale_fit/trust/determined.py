"""What the runs leave open: parameters and predictions of which any other value would fit them as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bntools.tools.scale_fit.laws import Array, evaluate
from bntools.tools.scale_fit.trust.noise import scatter

if TYPE_CHECKING:
    from bntools.tools.scale_fit.fit import Fit

RAY = 0.999
"""Correlation of log N and log D from which on exchanging the two terms changes too little to be seen."""
FEW = 3
"""Residual degrees of freedom needed for an interval: with 1 or 2 the noise is not known well enough."""
_SINGULAR = 1e-7
_PART = 1e-3
"""Part in a direction the runs leave open from which on a parameter is open."""
_UNSURE = 0.5
"""Standard error relative to the value from which on a parameter is open: no sign that it is not 0."""


@dataclass(frozen=True)
class Determined:
    """undetermined: names of parameters; ray: whether N and D vary as one; free: residual degrees of freedom.

    directions [p, p] and singular [p] are those of the Jacobian with columns of length one, `scale` [p] before that.
    """

    undetermined: frozenset[str]
    ray: bool
    free: int
    directions: Array
    singular: Array
    scale: Array
    sigma: float

    def error(self, gradient: Array) -> float:
        """Standard error of a quantity with this gradient [p]; infinite where it changes along what is open."""
        along = self.directions @ (gradient / self.scale)
        open_ = self.singular <= _SINGULAR * self.singular[0]
        if np.any(np.abs(along[open_]) > _PART * np.linalg.norm(along)):
            return float("inf")
        return float(self.sigma * np.sqrt(np.square(along[~open_] / self.singular[~open_]).sum()))


def determined(fit: Fit) -> Determined:
    """By the Jacobian at the optimum, its rank and its standard errors, and by N and D on a ray."""
    jacobian = fit.jacobian()
    length = np.linalg.norm(jacobian, axis=0)
    scale = np.where(length > 0, length, 1.0)
    _, singular, directions = np.linalg.svd(jacobian / scale, full_matrices=False)
    sigma, ray = scatter(fit.problem, fit.theta), on_ray(fit)
    whole = Determined(frozenset(), ray, _free(fit), directions, singular, scale, sigma)
    names = fit.law.parameters if ray else _unsure(fit, whole)
    return Determined(frozenset(names), ray, whole.free, directions, singular, scale, sigma)


def few(fit: Fit) -> bool:
    """Whether the runs are too few for any interval."""
    return _free(fit) < FEW


def on_ray(fit: Fit) -> bool:
    """Whether N and D vary together so closely that their terms can be exchanged."""
    return fit.law.joint and abs(float(np.corrcoef(fit.problem.x)[0, 1])) > RAY


def growing(fit: Fit) -> list[str]:
    """Variables with which the fitted loss does not fall."""
    exponents = fit.theta[1:4:2] if fit.law.joint else fit.theta[1:2]
    return [name for name, value in zip(fit.variables, exponents, strict=True) if not value > 0]


def dividable(fit: Fit, known: Determined) -> bool:
    """Whether the law has an optimum for a budget, and the runs say where."""
    return not known.undetermined & {"A", "alpha", "B", "beta"} and not growing(fit)


def predictable(fit: Fit, known: Determined, values: dict[str, float]) -> bool:
    """Whether the runs determine the loss at a point."""
    x = np.log([values[name] for name in fit.variables]) - fit.center
    if known.ray and not _near_ray(fit, x):
        return False
    gradient = np.array([part[0, 0] for part in evaluate(fit.law, fit.theta[None], x[:, None]).derivatives])
    return bool(np.isfinite(gradient).all()) and known.error(gradient) <= _UNSURE


def _free(fit: Fit) -> int:
    return fit.problem.y.size - fit.theta.size


def _near_ray(fit: Fit, x: Array) -> bool:
    """Whether a point is as near to the line of the runs as they are, or a tenth of its size."""
    first, second = fit.problem.x
    slope = float(first @ second / (first @ first))
    return abs(x[1] - slope * x[0]) <= max(float(np.abs(second - slope * first).max()), 0.1)


def _unsure(fit: Fit, known: Determined) -> set[str]:
    """Names of parameters along a direction without effect, or with an error of half of what they are."""
    names: set[str] = set()
    errors = [known.error(row) for row in np.eye(fit.theta.size)]
    for place, name in enumerate(fit.law.parameters):
        error, value = errors[place], float(fit.theta[place])
        if name in ("alpha", "beta"):
            if error > _UNSURE * abs(value):
                names |= {name, "A" if name == "alpha" else "B"}
        elif name in ("A", "B"):
            if error > 1:
                names |= {name, "alpha" if name == "A" else "beta"}
        elif not np.exp(value) * error <= _UNSURE * fit.runs.loss.min():
            names.add(name)
    if "E" in fit.law.parameters and np.isinf(errors).any():
        names.add("E")  # of a term without a shape its level cannot be told from E
    return names
