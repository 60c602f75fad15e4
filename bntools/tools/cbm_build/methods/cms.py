"""Concept Matrix Search (arXiv 2404.03323): no training; a row goes to the class whose concept profile is nearest.

V [N, K] cosines of rows with concepts, T [C, K] of class names with concepts: argmax_y cos(V_i, T_y). The length of V_i
is the same for all classes, so this is a linear head with weights T_y / |T_y|. Its fault: it needs class names the
encoder knows, and every concept has a weight.
"""

from __future__ import annotations

import numpy as np

from bntools.core.errors import usage
from bntools.core.methods.cbm.bottleneck import unit
from bntools.core.progress import Progress
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    if training.class_vectors is None:
        raise usage("--method cms needs embeddings of the classes' names", "--class-embeddings FILE")
    profile = unit(training.class_vectors) @ unit(training.bank.vectors).T
    bank = training.bank.at(np.arange(len(training.bank)))
    weight = unit(profile) / np.maximum(np.linalg.norm(training.bank.vectors, axis=1), 1e-12)
    note: dict[str, object] = {"fault": "dense: every concept has a weight"}
    return Head(weight.astype(np.float32), np.zeros(len(weight), np.float32), [], note, bank=bank, raw=True)
