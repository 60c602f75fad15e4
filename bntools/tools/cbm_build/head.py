"""The sparse head: an l1 path for the support, then every sparsity in one pass, l2 by validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bntools.core.progress import Progress
from bntools.kernels.linear import softmax
from bntools.kernels.linear.design import Design, Floats
from bntools.kernels.linear.fit import ConceptSupport, Penalty, Problem, SoftmaxFit, fit, null
from bntools.kernels.linear.prune import backward, keep_largest, refit, restrict
from bntools.kernels.linear.softmax import Labels

ALPHA = 0.99
"""Share of l1 in the elastic net (glm_saga's and LF-CBM's)."""
L2 = (0.1, 0.03, 0.01)
"""Penalties tried, on columns of deviation 1."""
_ROOM = 1.3
"""The support that pruning starts from holds so many times the largest number of weights asked for."""
_PATH_RATIO, _FINE_RATIO = 0.7, 0.93
_PATH_TOLERANCE = 3e-3


class Split(NamedTuple):
    """Standardised columns and classes of some rows."""

    design: Design
    labels: Labels


@dataclass(frozen=True)
class Plan:
    """necs: sparsities of the table, in concepts a class. l2: None to choose one of the penalties by validation."""

    necs: tuple[int, ...]
    l2: float | None = None
    per_class: bool = True
    exchanges: int = 1
    refit: bool = True
    penalties: tuple[float, ...] = L2


class Point(NamedTuple):
    """One line of the table: what was fitted at a sparsity, and its accuracy on validation rows."""

    nec: int
    fit: SoftmaxFit
    l2: float
    validation: float


def problem_of(split: Split) -> Problem:
    return Problem(split.design, split.design.gram(), split.labels)


def penalty_at(fraction: float, top: float) -> Penalty:
    """Elastic net at a fraction of the penalty above which every weight is 0."""
    return Penalty(ALPHA * fraction * top, (1 - ALPHA) * fraction * top)


def strongest(problem: Problem) -> float:
    """The smallest penalty at which every weight is 0."""
    _, residual = softmax.residual(null(problem).scores, problem.labels)
    return max(float(np.abs(problem.design.gradient(residual)).max()) / ALPHA, 1e-12)


def l1_path(
    problem: Problem, count: int, ratio: float, tolerance: float
) -> Iterator[tuple[float, SoftmaxFit]]:
    """Fits at falling fractions of the strongest penalty, each from the one before, until `count` weights are in."""
    current, fraction, top = null(problem), 1.0, strongest(problem)
    while fraction > 1e-4:
        fraction *= ratio
        current = fit(problem, penalty_at(fraction, top), current, tolerance=tolerance)
        yield fraction, current
        if (current.weight != 0).sum() >= count:
            return


def predict_accuracy(split: Split, weight: Floats, bias: Floats) -> float:
    hit = (split.design.scores(weight) + bias[:, None]).argmax(0) == split.labels.of
    return float(hit.mean()) if len(hit) else float("nan")


def sparse_head(train: Split, part: Split, held: Split, plan: Plan, progress: Progress) -> list[Point]:
    """The head at every sparsity of the plan, fitted on `train`; `part` and `held` are its division for choices."""
    if not plan.refit:
        return truncated(train, held, plan)
    classes = len(train.labels.share)
    budgets = [nec * classes for nec in plan.necs]
    room = int(_ROOM * max(budgets)) + classes
    smaller = problem_of(part)
    fraction, start = list(l1_path(smaller, room, _PATH_RATIO, _PATH_TOLERANCE))[-1]
    tried = _validate(smaller, held, start, plan, progress)
    l2 = _best(tried, len(held.labels.of))
    return _final(train, (start, fraction), plan, l2, tried[l2], progress)


def _best(tried: dict[float, dict[int, float]], rows: int) -> float:
    """The penalty of the best mean accuracy; the middle one where that is within a standard error of it.

    Accuracies of a thousand rows differ by chance more than neighbouring penalties make them differ, and a log loss
    prefers the smallest penalty, which is not the one with the best accuracy at few concepts a class.
    """
    middle = list(tried)[len(tried) // 2]
    if not rows:
        return middle
    mean = {l2: float(np.mean(list(accuracy.values()))) for l2, accuracy in tried.items()}
    best = max(mean, key=lambda l2: (mean[l2], l2))
    error = (mean[middle] * (1 - mean[middle]) / rows) ** 0.5
    return best if mean[best] > mean[middle] + error else middle


def _validate(
    problem: Problem, held: Split, start: SoftmaxFit, plan: Plan, progress: Progress
) -> dict[float, dict[int, float]]:
    """Accuracy on held-out rows {penalty: {weights: accuracy}}: one backward pass, each of its supports with all."""
    penalties = plan.penalties if plan.l2 is None else (plan.l2,)
    middle = penalties[len(penalties) // 2]
    tried: dict[float, dict[int, float]] = {l2: {} for l2 in penalties}
    budgets = [nec * len(start.weight) for nec in plan.necs]
    passes = backward(problem, start, budgets, middle, per_class=plan.per_class, exchanges=0)
    with progress("validation", len(budgets)) as advance:
        for budget, model in passes:
            for l2 in penalties:
                fitted = model if l2 == middle else refit(problem, model, model.weight != 0, l2)
                tried[l2][budget] = predict_accuracy(held, fitted.weight, fitted.bias)
            advance(1)
    return tried


def _final(train: Split, origin, plan: Plan, l2: float, validation, progress: Progress) -> list[Point]:
    problem = problem_of(train)
    start, fraction = origin
    scores = problem.design.scores(start.weight) + start.bias[:, None]
    first = fit(
        problem,
        penalty_at(fraction, strongest(problem)),
        start._replace(scores=scores),
        tolerance=_PATH_TOLERANCE,
    )
    classes = len(train.labels.share)
    budgets = [nec * classes for nec in plan.necs]
    points = []
    with progress("fit", len(budgets)) as advance:
        for budget, model in backward(
            problem, first, budgets, l2, per_class=plan.per_class, exchanges=plan.exchanges
        ):
            points.append(Point(budget // classes, model, l2, validation[budget]))
            advance(1)
    return points[::-1]


def truncated(train: Split, held: Split, plan: Plan) -> list[Point]:
    """The published protocol (VLG-CBM): the first fit of a fine path that is dense enough, its largest weights.

    The weights keep their shrinkage and the bias its value, so low sparsities are worse than they need to be.
    """
    problem, points = problem_of(train), []
    classes, wanted = len(train.labels.share), sorted(set(plan.necs))
    last = null(problem)
    for _, last in l1_path(problem, classes * wanted[-1], _FINE_RATIO, 1e-3):
        while len(points) < len(wanted) and (last.weight != 0).sum() >= classes * wanted[len(points)]:
            points.append(_cut(problem, last, held, wanted[len(points)]))
    return points + [_cut(problem, last, held, nec) for nec in wanted[len(points) :]]


def _cut(problem: Problem, model: SoftmaxFit, held: Split, nec: int) -> Point:
    mask = keep_largest(np.abs(model.weight), nec * len(model.weight))
    cut = restrict(problem, model, mask)
    return Point(nec, cut, 0.0, predict_accuracy(held, cut.weight, cut.bias))


def spectral(split: Split) -> Problem:
    """A problem whose ridge fits over all columns take direct steps."""
    problem = problem_of(split)
    values, vectors = np.linalg.eigh(problem.gram)
    return problem._replace(spectrum=(values, vectors))


def dense_head(problem: Problem, l2: float, split: Split | None = None) -> SoftmaxFit:
    """Ridge softmax on all columns of a spectral problem; split: on these rows of it in place of its own."""
    if split is not None:
        problem = problem._replace(design=split.design, labels=split.labels)
    everything = ConceptSupport.of(np.ones((len(problem.labels.share), problem.design.columns), bool))
    return fit(problem, Penalty(0.0, l2), null(problem), support=everything, tolerance=1e-3, limit=200)
