"""PCBM-h (arXiv 2205.15480): a linear map of the embedding past the concepts, fitted after a frozen PCBM.

Its fault: what the residual explains, no concept does; so its share of the logits is reported.
"""

from __future__ import annotations

import numpy as np

from bntools.core.progress import Progress
from bntools.kernels.linear.design import Design, FactoredDesign, Floats
from bntools.kernels.linear.fit import ConceptSupport, Penalty, Problem, null
from bntools.kernels.linear.fit import fit as minimise
from bntools.tools.cbm_build.methods import pcbm
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

_L2 = 0.03


class Shifted:
    """A design whose scores start from those of a frozen model."""

    def __init__(self, design: Design, offset: Floats):
        self._design, self._offset = design, offset
        self.rows, self.columns = design.rows, design.columns
        self.gradient, self.gram = design.gradient, design.gram

    def scores(self, weight: Floats) -> Floats:
        return self._design.scores(weight) + self._offset


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    frozen = pcbm.fit(training, settings, progress)
    width = training.embeddings.shape[1]
    plain = FactoredDesign(training.embeddings, np.eye(width, dtype=np.float32))
    offset = training.design.scores(frozen.weight) + frozen.bias[:, None]
    gram = plain.gram()
    values, vectors = np.linalg.eigh(gram)
    problem = Problem(Shifted(plain, offset), gram, training.labels, (values, vectors))
    start = null(problem)
    bias = np.zeros_like(start.bias)
    start = start._replace(bias=bias, scores=offset + 0)
    everything = ConceptSupport.of(np.ones(start.weight.shape, bool))
    result = minimise(problem, Penalty(0.0, _L2), start, support=everything, tolerance=1e-3, limit=200)
    weight = result.weight * plain.standard.inverse.astype(np.float32)
    shift = result.bias - weight @ plain.center
    share = float(np.abs(plain.scores(result.weight)).mean() / max(float(np.abs(offset).mean()), 1e-12))
    notes = {
        **frozen.notes,
        "residual_over_concepts": share,
        "fault": "the residual is explained by no concept",
    }
    return Head(frozen.weight, frozen.bias, [], notes, residual=(weight, shift))
