"""From a support that is too large to an exact number of weights: prune, refit, exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.linear.design import Floats
from bntools.kernels.linear.fit import ConceptSupport, Penalty, Problem, SoftmaxFit, fit
from bntools.kernels.linear.softmax import residual

KEEP = 0.8
"""Share of the weights that outlives one pruning step."""
_REFIT = 1e-3
"""Gap relative to the objective at which the refit between two pruning steps ends."""


def keep_largest(importance: Floats, count: int, *, per_class: bool = False) -> NDArray[np.bool_]:
    """Mask of the `count` largest entries of [C, K], ties to the earlier one; per_class: the same number a row.

    Entries that are 0 are never among them. Where `count` is no multiple of C, the first classes get one more.
    """
    mask = np.zeros(importance.shape, bool)
    if per_class:
        share, extra = divmod(count, len(importance))
        for row, (target, values) in enumerate(zip(mask, importance, strict=True)):
            target[np.argsort(-values, kind="stable")[: share + (row < extra)]] = True
    else:
        mask.reshape(-1)[np.argsort(-importance.reshape(-1), kind="stable")[:count]] = True
    return mask & (importance > 0)


def saliency(problem: Problem, weight: Floats, scores: Floats, l2: float) -> Floats:
    """What removing one weight costs when the others of its class answer: w^2 / (2 [H^-1]_kk), 0 off the support.

    H is the Hessian of the class's own weights, with p(1 - p) of each row approximated by the class's mean: a
    multiple of the Gram matrix (optimal brain surgeon).
    """
    shifted = np.exp(scores - scores.max(0))
    shifted /= shifted.sum(0)
    bend = (shifted * (1 - shifted)).mean(1, dtype=np.float64)
    result = np.zeros_like(weight)
    for c, row in enumerate(weight):
        columns = np.flatnonzero(row)
        if len(columns):
            hessian = bend[c] * problem.gram[np.ix_(columns, columns)].astype(np.float64)
            hessian[np.diag_indices(len(columns))] += max(l2, 1e-8)
            inverse = np.linalg.inv(hessian).diagonal()
            result[c, columns] = row[columns].astype(np.float64) ** 2 / (2 * inverse)
    return result


def restrict(problem: Problem, current: SoftmaxFit, mask: NDArray[np.bool_]) -> SoftmaxFit:
    """The same model with the weights outside of the mask set to 0."""
    weight = np.where(mask, current.weight, np.float32(0))
    scores = problem.design.scores(weight) + current.bias[:, None]
    return current._replace(weight=weight, scores=scores)


def refit(
    problem: Problem, current: SoftmaxFit, mask: NDArray[np.bool_], l2: float, tolerance: float = _REFIT
) -> SoftmaxFit:
    """Ridge fit of the masked weights alone."""
    start = restrict(problem, current, mask)
    return fit(
        problem, Penalty(0.0, l2), start, support=ConceptSupport.of(mask), tolerance=tolerance, limit=60
    )


def backward(
    problem: Problem, start: SoftmaxFit, budgets: Sequence[int], l2: float, *,
    per_class: bool = False, exchanges: int = 2,
) -> Iterator[tuple[int, SoftmaxFit]]:  # fmt: skip
    """Models with exactly so many weights (or all there are), largest budget first, in one pass.

    start: a fit whose support is larger than the largest budget. At each budget, `exchanges` rounds let in the
    weights the loss would gain most from and prune as many, as long as the objective falls.
    """
    mask = start.weight != 0
    if per_class:
        mask |= _enough(problem, start, -(-max(budgets) // len(mask)))
    current = refit(problem, start, mask, l2)
    for budget in sorted(set(budgets), reverse=True):
        while int(mask.sum()) > budget:
            target = max(budget, int(KEEP * mask.sum()))
            importance = saliency(problem, current.weight, current.scores, l2)
            mask = keep_largest(importance, target, per_class=per_class)
            current = refit(problem, current, mask, l2)
        for _ in range(exchanges):
            tried = exchange(problem, current, budget, l2, per_class=per_class)
            if tried.value >= current.value * (1 - 1e-4):
                break
            current = tried
        current = refit(problem, current, current.weight != 0, l2, 1e-4)
        mask = current.weight != 0
        yield budget, current


def exchange(
    problem: Problem, current: SoftmaxFit, budget: int, l2: float, *, per_class: bool = False
) -> SoftmaxFit:
    """Let in a quarter more weights where the loss falls steepest, refit, prune back to the budget, refit."""
    mask = current.weight != 0
    _, off = residual(current.scores, problem.labels)
    slope = np.where(mask, np.float32(0), np.abs(problem.design.gradient(off)))
    room = max(1, budget // 4)
    entering = keep_largest(slope, room, per_class=per_class and room >= len(mask))
    wide = refit(problem, current, mask | entering, l2)
    importance = saliency(problem, wide.weight, wide.scores, l2)
    return refit(problem, wide, keep_largest(importance, budget, per_class=per_class), l2)


def _enough(problem: Problem, start: SoftmaxFit, count: int) -> NDArray[np.bool_]:
    """At least `count` columns in each class: its weights, then where the loss falls steepest."""
    _, off = residual(start.scores, problem.labels)
    slope = np.abs(problem.design.gradient(off)) + np.where(start.weight != 0, np.float32(1e3), np.float32(0))
    return keep_largest(slope, count * len(slope), per_class=True)
