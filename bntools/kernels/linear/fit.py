"""Softmax regression by accelerated steps of a quadratic model in the metric of the Gram matrix.

The likelihood's curvature in class c is below h_c X'X / n for a number h_c that is found on the way. A step minimises
the model g'd + h/2 d'Gd plus the penalties exactly (coordinate.py), which needs no row of the data; so the data are
read twice an iteration, and correlated columns do not slow it as they slow plain proximal gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.linear import softmax
from bntools.kernels.linear.coordinate import lasso_steps, ridge_steps
from bntools.kernels.linear.design import Design, Floats
from bntools.kernels.linear.softmax import Labels
from bntools.kernels.linear.support import narrowed

GROW, SHRINK = 2.0, 0.85
"""Factors of the curvature after a step that was too long, and after one that was not."""


class Penalty(NamedTuple):
    """l1 |W|_1 + l2/2 |W|^2; the bias is free."""

    l1: float
    l2: float

    def of(self, weight: Floats) -> float:
        absolute, square = 0.0, 0.0
        if self.l1:
            absolute = float(np.abs(weight).sum(dtype=np.float64))
        if self.l2:
            square = float(np.square(weight, dtype=np.float64).sum())
        return self.l1 * absolute + self.l2 / 2 * square


class ConceptSupport(NamedTuple):
    """The columns each class may use: columns[starts[c] : starts[c + 1]]."""

    columns: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> ConceptSupport:
        rows, columns = np.nonzero(mask)
        return cls(columns, np.searchsorted(rows, np.arange(len(mask) + 1)))


class Problem(NamedTuple):
    """Standardised columns, their Gram matrix, and the class of each row.

    spectrum: eigenvalues [K] and vectors [K, K] of the Gram matrix, which make a ridge step over all columns direct.
    The Gram matrix may be of other rows of the same columns: it is a metric, and steps are checked against the loss.
    """

    design: Design
    gram: Floats
    labels: Labels
    spectrum: tuple[Floats, Floats] | None = None


class SoftmaxFit(NamedTuple):
    """weight [C, K], bias [C], scores [C, N] of the training rows, curvature [C] for a warm start."""

    weight: Floats
    bias: Floats
    scores: Floats
    curvature: Floats
    value: float
    gap: float
    iterations: int


def null(problem: Problem) -> SoftmaxFit:
    """The model without concepts: the bias is the log of each class's share."""
    share = np.maximum(problem.labels.share, 1e-6)
    bias = np.log(share / share.sum()).astype(np.float32)
    scores = np.repeat(bias[:, None], problem.design.rows, 1)
    weight = np.zeros((len(share), problem.design.columns), np.float32)
    curvature = (share * (1 - share) + 1e-3).astype(np.float32)
    return SoftmaxFit(weight, bias, scores, curvature, softmax.loss(scores, problem.labels), np.inf, 0)


def fit(
    problem: Problem, penalty: Penalty, start: SoftmaxFit, *,
    support: ConceptSupport | None = None, tolerance: float = 1e-4, limit: int = 500,
) -> SoftmaxFit:  # fmt: skip
    """Minimise mean cross-entropy + penalty from `start` until the duality gap is below tolerance x objective.

    support: fit these weights alone (the others of `start` must be 0), without l1.
    """
    if support is not None:
        problem = problem._replace(design=narrowed(problem.design, support.columns, support.starts))
    current, ahead, momentum = start, (start.weight, start.bias, start.scores), 1.0
    value = softmax.loss(start.scores, problem.labels) + penalty.of(start.weight)
    curvature, gap, count = start.curvature.copy(), np.inf, 0
    for count in range(1, limit + 1):
        ahead_loss, residual = softmax.residual(ahead[2], problem.labels)
        slope, drift = problem.design.gradient(residual), residual.mean(1, dtype=np.float64)
        if support is None or penalty.l2:
            gap = _gap(problem, penalty, ahead, (ahead_loss, residual, slope), support)
            if gap <= tolerance * max(value, 1e-12):
                current = SoftmaxFit(*ahead, curvature, ahead_loss + penalty.of(ahead[0]), gap, count)
                break
        while True:
            weight = _step(problem, penalty, current.weight, (ahead[0], slope, curvature), support)
            bias = ahead[1] - (drift / curvature).astype(np.float32)
            scores = problem.design.scores(weight) + bias[:, None]
            new_loss = softmax.loss(scores, problem.labels)
            model = _model(problem.gram, curvature, (slope, drift), (weight - ahead[0], bias - ahead[1]))
            if new_loss <= ahead_loss + model + 1e-7 * abs(ahead_loss) or curvature.max() > 1e3:
                break
            curvature *= np.float32(GROW)
        new_value = new_loss + penalty.of(weight)
        following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        push = np.float32((momentum - 1) / following)
        momentum = following
        if new_value > value + 1e-9 * abs(value):
            push, momentum = np.float32(0), 1.0
        ahead = (
            weight + push * (weight - current.weight),
            bias + push * (bias - current.bias),
            scores + push * (scores - current.scores),
        )
        moved = value - new_value
        current, value = SoftmaxFit(weight, bias, scores, curvature, new_value, gap, count), new_value
        curvature *= np.float32(SHRINK)
        if support is not None and abs(moved) <= 0.1 * tolerance * value and push > 0:
            break
    return current


def _step(problem, penalty, weight, model, support) -> Floats:
    point, slope, curvature = model
    result = weight.copy()
    scale = np.float32(1e-4)
    if problem.spectrum is not None and support is not None:
        values, vectors = problem.spectrum
        pull = (slope + np.float32(penalty.l2) * point) @ vectors
        return (
            point - (pull / (curvature[:, None] * np.maximum(values, 0) + np.float32(penalty.l2))) @ vectors.T
        )
    if support is None:
        l1, l2 = np.float32(penalty.l1), np.float32(penalty.l2)
        lasso_steps(result, point, slope, problem.gram, curvature, l1, l2, scale, 3)
    else:
        columns, starts = support
        ridge_steps(
            result, point, slope, problem.gram, curvature, np.float32(penalty.l2), columns, starts, scale, 100
        )
    return result


def _model(gram: Floats, curvature: Floats, slopes, steps) -> float:
    """First and second order change of the loss: g'd + h/2 (d'Gd + the same of the bias)."""
    slope, drift = slopes
    step, shift = steps
    live = np.flatnonzero(step.any(0))
    part = step[:, live]
    bend = np.einsum("ck,ck->c", part @ gram[np.ix_(live, live)], part) + shift**2
    return float((slope[:, live] * part).sum() + drift @ shift + 0.5 * (curvature * bend).sum())


def _gap(problem: Problem, penalty: Penalty, point, first, support: ConceptSupport | None) -> float:
    """Primal minus dual value at a point, 0 at the optimum.

    Dual of the softmax: max over rows q of probabilities with the classes' shares of mean H(q) - Omega*(X'(Y - Q)/n),
    Omega* the conjugate of the penalty. q is P moved towards Y until the slope without its l2 part fits l1.
    """
    weight, bias, scores = point
    value, residual, slope = first
    rows = np.arange(problem.design.rows)
    if support is not None:
        classes = np.repeat(np.arange(len(weight)), np.diff(support.starts))
        pull = slope[classes, support.columns].astype(np.float64)
        conjugate, shrunk = float(pull @ pull) / (2 * penalty.l2), 1.0
    else:
        size = np.abs(slope)
        top = float(size.max())
        conjugate = 0.0
        over = np.maximum(size - penalty.l1, 0).astype(np.float64)
        if penalty.l2:
            conjugate = float((over * over).sum()) / (2 * penalty.l2)
        elif over.any():
            conjugate = np.inf  # outside of the l1 ball: only the scaled point below is a bound
        shrunk = penalty.l1 / top if top > penalty.l1 else 1.0
    own = residual[problem.labels.of, rows]
    # mean H(p) = mean (logsumexp z - <p, z>): cross-entropy + z_y - <p, z>
    spread = -float(np.vdot(residual, scores)) / len(rows)
    entropy = value + spread
    drift = float(np.abs(residual.mean(1, dtype=np.float64)) @ np.abs(bias))
    primal = value + penalty.of(weight)
    best = primal - (entropy - conjugate)
    if support is None and shrunk < 1:
        # q = s p + (1 - s) y: other classes s p, the own one s p + 1 - s
        p = np.maximum(own + 1, 1e-30)
        q = np.maximum(shrunk * p + 1 - shrunk, 1e-30)
        rest = shrunk * (entropy + float((p * np.log(p)).mean(dtype=np.float64)))
        rest -= shrunk * np.log(shrunk) * float(-own.mean(dtype=np.float64)) if shrunk > 0 else 0.0
        mixed = rest - float((q * np.log(q)).mean(dtype=np.float64))
        best = min(best, primal - mixed)
    return max(best, 0.0) + drift
