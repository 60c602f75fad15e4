"""Post-hoc CBM (arXiv 2205.15480): one-vs-rest logistic regressions with an elastic net on concept margins.

Each class minimises mean log-loss + lam (l1r |w|_1 + (1 - l1r)/2 |w|^2), l1r = 0.99, to a duality gap rather than by
stochastic steps, which leave no exact zeros. Margins are standardised (theirs are not): with text concepts of tiny
variance any penalty is otherwise without meaning. Its fault: sparsity is what the penalty happens to give.
"""

from __future__ import annotations

import numpy as np

from bntools.core.progress import Progress
from bntools.kernels.linear.fit import Penalty, Problem, null
from bntools.kernels.linear.fit import fit as minimise
from bntools.kernels.linear.softmax import Labels
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

L1_SHARE = 0.99


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    """A two-class softmax with weights -w/2, w/2 is the logistic regression: l1 as it is, l2 twice."""
    gram, classes = training.design.gram(), len(training.classes)
    weight = np.zeros((classes, training.design.columns), np.float32)
    bias = np.zeros(classes, np.float32)
    penalty = Penalty(L1_SHARE * settings.lam, 2 * (1 - L1_SHARE) * settings.lam)
    with progress("one against the rest", classes) as advance:
        for c in range(classes):
            problem = Problem(training.design, gram, Labels.tally((training.y == c).astype(np.int64), 2))
            result = minimise(problem, penalty, null(problem), tolerance=1e-3)
            weight[c] = result.weight[1] - result.weight[0]
            bias[c] = result.bias[1] - result.bias[0]
            advance(1)
    notes: dict[str, object] = {
        "lam": settings.lam,
        "fault": "sparsity follows from the penalty, not the reverse",
    }
    return Head(weight, bias, [], notes)
