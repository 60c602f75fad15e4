"""Four conditional probabilities of an energy-based bottleneck, for some rows or averaged over them.

p(c_-k, y | x, c_k) of a row is `infer` with that concept known. Averages over rows x of the posterior answer the
others: p(c_k | y) weighs rows by p(y | x), p(c_k | c_j, y) by p(y | x) p(c_j | y, x), p(c_k | c_j) by p(c_j | x).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bntools.core.methods.cbm.bottleneck import Floats
from bntools.core.methods.cbm.energy.energies import EnergyModel
from bntools.core.methods.cbm.energy.inference import block_rows, infer


class Conditionals(NamedTuple):
    """classes [C]: p(y). concepts [K]: p(c_k). of_class [C, K]: p(c_k | y).

    given [K]: p(c_k | c_j), and given_class [C, K]: p(c_k | c_j, y); None where no concept c_j was asked about.
    """

    classes: Floats
    concepts: Floats
    of_class: Floats
    given: Floats | None
    given_class: Floats | None


def conditionals(model: EnergyModel, embeddings: Floats, concept: int | None = None) -> Conditionals:
    """All of them over some rows; concept: the index j of the one that is given as present."""
    classes, count = len(model.classes), len(model.names)
    weight, joint = np.zeros(classes), np.zeros((classes, count))
    pair_weight, pair = np.zeros(classes), np.zeros((classes, count))
    for start in range(0, len(embeddings), block_rows(model)):
        part = infer(model, embeddings[start : start + block_rows(model)])
        weight += part.classes.sum(0, dtype=np.float64)
        joint += np.einsum("nc,nck->ck", part.classes, part.given_class)
        if concept is not None:
            both = part.classes * part.given_class[:, :, concept]
            present = part.given_class.copy()
            present[:, :, concept] = 1
            pair_weight += both.sum(0, dtype=np.float64)
            pair += np.einsum("nc,nck->ck", both, present)
    given = None if concept is None else pair.sum(0) / max(pair_weight.sum(), 1e-30)
    given_class = None if concept is None else pair / np.maximum(pair_weight, 1e-30)[:, None]
    return Conditionals(
        weight / len(embeddings), joint.sum(0) / len(embeddings), joint / np.maximum(weight, 1e-30)[:, None],
        given, given_class,
    )  # fmt: skip
