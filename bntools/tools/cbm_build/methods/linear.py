"""All concepts, a ridge head: what the bank holds, without the constraint that makes it a bottleneck to read."""

from __future__ import annotations

from bntools.core.progress import Progress
from bntools.tools.cbm_build.head import L2, dense_head, predict_accuracy, spectral
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    part, held = training.division()
    problem = spectral(training.whole)
    penalties = L2 if settings.l2 is None else (settings.l2,)
    scores = {}
    for l2 in penalties if len(penalties) > 1 and len(held.labels.of) else ():
        model = dense_head(problem, l2, part)
        scores[l2] = predict_accuracy(held, model.weight, model.bias)
    l2 = max(scores, key=lambda value: scores[value]) if scores else penalties[0]
    model = dense_head(problem, l2)
    return Head(model.weight, model.bias, [], {"l2": l2, "fault": "dense: every concept has a weight"})
