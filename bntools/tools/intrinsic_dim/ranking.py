"""Which of some runs is best on held-out data: by score, then by loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bntools.tools.intrinsic_dim.runs import Run


def best(runs: Sequence[Run], guessing: tuple[float, int] | None = None) -> Run:
    """The best run; where all scores tie, that of the least loss; of equal ones that with the middle learning rate.

    guessing: the share of the largest class and the rows it was counted on, where scores are accuracies.
    """
    if tied(runs, guessing) and any(_loss(run) < math.inf for run in runs):
        return min(runs, key=_loss)
    top = max(map(_rank, runs))
    equal = sorted((run for run in runs if _rank(run) == top), key=lambda run: run.job.lr)
    return equal[len(equal) // 2]


def tied(runs: Sequence[Run], guessing: tuple[float, int] | None) -> bool:
    """Whether no score tells runs apart: all are equal, or no better than guessing within two standard errors."""
    scores = {validation(run) for run in runs}
    if guessing is None:
        return len(scores) == 1
    share, rows = guessing
    return len(scores) == 1 or max(scores) <= share + 2 * math.sqrt(share * (1 - share) / rows)


def validation(run: Run) -> float:
    """The score on held-out data; of a run that fell apart, less than any."""
    value = run.outcome.validation
    return value if math.isfinite(value) else -math.inf


def _rank(run: Run) -> tuple[float, float]:
    return validation(run), -_loss(run)


def _loss(run: Run) -> float:
    loss = run.outcome.loss
    return loss if loss is not None and math.isfinite(loss) else math.inf
