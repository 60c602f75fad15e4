"""LaBo (arXiv 2211.11158): submodular selection of concepts, then a head on them.

Ours puts the exactly sparse head on the selection. --paper has the association matrix: class y is the embedding
t_y = sum_c softmax(A_y)_c v_c, and logits are 100 e't_y. Its faults: every concept has a weight, so no class is
explained by a few; weights cannot be negative; 1000 epochs where a convex head takes seconds.
"""

from __future__ import annotations

import numpy as np

from bntools.core.progress import Progress
from bntools.tools.cbm_build.head import L2, Plan, sparse_head
from bntools.tools.cbm_build.settings import AUTO, Settings
from bntools.tools.cbm_build.training import Head, Training

_TEMPERATURE = 100.0
_RATE = 0.05


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    if settings.paper:
        return association(training, settings, progress)
    return sparse(training, settings, progress)


def sparse(
    training: Training, settings: Settings, progress: Progress, penalties: tuple[float, ...] = L2
) -> Head:
    """The exactly sparse head on the concepts there are, at every sparsity that is wanted."""
    part, held = training.division()
    necs = settings.necs(len(training.bank))
    plan = Plan(necs, settings.l2, settings.budget == "class", refit=settings.refit, penalties=penalties)
    points = sparse_head(training.whole, part, held, plan, progress)
    chosen = points[_choose(points, settings.nec, len(training.held))]
    return Head(chosen.fit.weight, chosen.fit.bias, points, {"l2": chosen.l2, "nec": chosen.nec})


def _choose(points, nec: int, rows: int) -> int:
    if nec != AUTO:
        return [point.nec for point in points].index(nec)
    scores = np.array([point.validation for point in points])
    best = np.nanmax(scores) if np.isfinite(scores).any() else 0.0
    error = (best * (1 - best) / max(rows, 1)) ** 0.5
    return int(np.argmax(scores >= best - error)) if np.isfinite(scores).any() else len(points) - 1


def association(training: Training, settings: Settings, progress: Progress) -> Head:
    """The paper's head: full-batch Adam on A from the language model's prior (A = 1 where a class owns a concept)."""
    import torch

    owner = training.bank.owner
    prior = np.zeros((len(training.classes), len(training.bank)), np.float32)
    if owner is not None:
        prior[:] = owner.T
    scores = torch.from_numpy(_TEMPERATURE * training.bank.raw(training.embeddings))
    truth = torch.from_numpy(training.y)
    matrix = torch.from_numpy(prior).requires_grad_()
    adam = torch.optim.Adam([matrix], lr=_RATE)
    with progress("association", settings.epochs) as advance:
        for _ in range(settings.epochs):
            adam.zero_grad()
            loss = torch.nn.functional.cross_entropy(scores @ matrix.softmax(1).T, truth)
            loss.backward()
            adam.step()
            advance(1)
    weight = _TEMPERATURE * matrix.detach().softmax(1).numpy()
    note = "softmax weights: dense and never negative"
    return Head(weight, np.zeros(len(weight), np.float32), [], {"fault": note}, raw=True)
