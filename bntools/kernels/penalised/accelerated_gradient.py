"""The accelerated gradient of Yang, Asgharian and Bhatnagar (arXiv 2009.10629) for SCAD and MCP, as its algorithm is.

Ghadimi and Lan's scheme for a smooth but not convex function plus a convex one: the concave part of the penalty goes to
the smooth side, lam |b| stays. Constants beta = .99 / L with L = max(largest eigenvalue of X X^T / n, the penalty's
curvature), alpha_1 = 1, alpha_{k+1} = 2 / (1 + sqrt(1 + 4 / alpha_k^2)), step beta / alpha_k for the second sequence.
Deviation: stopped by a relative change of 1e-7 where the authors' code has an absolute one of 1e-2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.penalised.penalties import LASSO, SCAD, concave_gradient

Floats = NDArray[np.float64]
_RESTART = 3  # iterations between restarts at least


class Descent(NamedTuple):
    """Coefficients [p], and the iterations that were needed."""

    coefficients: Floats
    iterations: int


def accelerated_gradient(
    design: Floats, y: Floats, lam: float, start: Floats, *, kind: int, shape: float, lipschitz: float,
    tol: float = 1e-7, most: int = 5000,
) -> Descent:  # fmt: skip
    """Least squares with one penalty, from `start` [p]. design [p, n]; lipschitz: of `smoothness`.

    Acceleration begins anew when the step became shorter, at most every third iteration (O'Donoghue and Candes).
    """
    n = len(y)
    beta = 0.99 / lipschitz
    alpha, since, length, iteration = 1.0, 0, np.inf, 0
    b, ag, md = start.copy(), start.copy(), start.copy()
    for iteration in range(1, most + 1):
        old = md
        md = (1 - alpha) * ag + alpha * b
        gradient = design @ (md @ design - y) / n + concave_gradient(md, lam, shape, kind)
        step = beta / alpha
        b = _soft(b - step * gradient, step * lam)
        ag = _soft(md - beta * gradient, beta * lam)
        moved = float(np.linalg.norm(md - old))
        if iteration > 1 and np.abs(md - old).max() <= tol * max(np.abs(md).max(), 1e-12):
            break
        alpha, since = 2 / (1 + np.sqrt(1 + 4 / alpha**2)), since + 1
        if moved < length and since >= _RESTART:
            alpha, since, b = 1.0, 0, ag.copy()
        length = moved
    return Descent(ag, iteration)


def smoothness(design: Floats, kind: int, shape: float) -> float:
    """Lipschitz constant of the smooth part's gradient: the design's, or the curvature of the penalty if larger."""
    p, n = design.shape
    gram = design @ design.T if p < n else design.T @ design
    curvature = 0.0 if kind == LASSO else 1 / (shape - 1) if kind == SCAD else 1 / shape
    return max(float(np.linalg.eigvalsh(gram)[-1]) / n, curvature)


def _soft(z: Floats, lam: float) -> Floats:
    return np.sign(z) * np.maximum(np.abs(z) - lam, 0)
