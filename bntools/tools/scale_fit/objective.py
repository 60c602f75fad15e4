"""What is minimised: the sum of Huber losses of the log residuals, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bntools.tools.scale_fit.laws import Array, Law, evaluate


@dataclass(frozen=True)
class Problem:
    """Runs to fit a law to: logs of the variables x [variables, runs], log losses y [runs], Huber's delta.

    x is taken from its mean, which makes the two parameters of a term nearly independent; A and B are meant there.
    """

    law: Law
    x: Array
    y: Array
    delta: float = 1e-3


def residuals(problem: Problem, theta: Array) -> Array:
    """Predicted minus measured log loss, [batch, runs]."""
    return evaluate(problem.law, theta, problem.x).log_loss - problem.y


def huber(residual: Array, delta: float) -> Array:
    """r^2 / 2 within delta, delta (|r| - delta / 2) outside."""
    bounded = np.clip(residual, -delta, delta)
    return bounded * (residual - bounded / 2)


def objective(problem: Problem, theta: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Sum of Huber losses [batch] and its gradient [batch, parameters]; infinite where the law is not finite.

    A sum, not a mean, whose small gradient makes optimisers stop early (Besiroglu et al., arXiv 2404.10102).
    weights: [batch, runs], how often each run counts; None counts each once.
    """
    terms = evaluate(problem.law, theta, problem.x)
    with np.errstate(all="ignore"):
        residual = terms.log_loss - problem.y
        slope = np.clip(residual, -problem.delta, problem.delta)
        values = slope * (residual - slope / 2)
        if weights is not None:
            values *= weights
            slope *= weights
        total = values.sum(1)
        gradient = np.stack([np.einsum("br,br->b", slope, part) for part in terms.derivatives], 1)
    bad = ~(np.isfinite(total) & np.isfinite(gradient).all(1))
    total[bad], gradient[bad] = np.inf, 0
    return total, gradient


def curvature(problem: Problem, theta: Array, weights: Array | None = None) -> Array:
    """Positive definite stand-in for the Hessian, [batch, parameters, parameters].

    The second derivative of the quadratic that touches each Huber loss at its residual from above:
    J^T diag(min(1, delta / |r|)) J.
    """
    terms = evaluate(problem.law, theta, problem.x)
    with np.errstate(all="ignore"):
        residual = np.abs(terms.log_loss - problem.y)
        weight = problem.delta / np.maximum(residual, problem.delta)
        weight = weight if weights is None else weight * weights
        jacobian = np.stack(terms.derivatives, 1)
        hessian = (jacobian * weight[:, None]) @ jacobian.transpose(0, 2, 1)
    hessian[~np.isfinite(hessian).all((1, 2))] = 0
    diagonal = np.einsum("bii->bi", hessian)
    floor = 1e-9 * diagonal.max(1, keepdims=True) + 1e-300
    diagonal += floor
    return hessian
