"""The three energies of an energy-based bottleneck (ECBM, arXiv 2401.14142), folded into matrix products.

E_xy = w_xy . phi(a, u_y), E_xc = w_k . phi(a', c_k^v), E_cy = w_cy . phi(P [c_1^v1 ... c_K^vK], u_y), with phi(a, b) =
ReLU(a + a b), a and a' affine in the embedding, u and c of length 1. A vector of length 1 has no entry below -1, so
phi(a, b) = ReLU(a) (1 + b): each energy is linear in ReLU(a), and no loop over concepts or classes is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Floats, unit


@dataclass(frozen=True)
class EnergyModel:
    """E(x, c, y) = -logits_y(x) - sum_k c_k odds_k(x) + coupling E_cy(c, y), a probability p ~ exp(-E).

    rows_to_classes, rows_to_concepts: (A [h, d], a [h]) before the ReLU; class_map [C, h] and concept_map [K, h] behind
    it give logits and log odds. base [h] and steps [K, h]: P [...] of absent concepts, and what each adds when present;
    global_map [C, h] behind the ReLU gives E_cy, of mean 0 over classes. coupling: of rows of which no concept is
    known, and of others. baselines: {name: (map [C or K, d], shift)} linear in the embedding, `concept_probe` of
    concepts. Embeddings are divided by their length first where normalize says so.
    """

    rows_to_classes: tuple[Floats, Floats]
    rows_to_concepts: tuple[Floats, Floats]
    class_map: Floats
    concept_map: Floats
    base: Floats
    steps: Floats
    global_map: Floats
    names: list[str]
    classes: list[str]
    labels: NDArray[np.int64]
    coupling: tuple[float, float] = (1.0, 1.0)
    normalize: bool = False
    baselines: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.rows_to_classes[0].shape[1]

    def prepare(self, embeddings: Floats) -> Floats:
        return unit(embeddings) if self.normalize else embeddings

    def class_logits(self, prepared: Floats) -> Floats:
        """-E_xy up to a constant, [N, C]."""
        weight, shift = self.rows_to_classes
        return np.maximum(prepared @ weight.T + shift, 0) @ self.class_map.T

    def concept_odds(self, prepared: Floats) -> Floats:
        """E_xc of an absent minus that of a present concept, [N, K]: log odds of the factor alone."""
        weight, shift = self.rows_to_concepts
        return np.maximum(prepared @ weight.T + shift, 0) @ self.concept_map.T

    def global_energy(self, concepts: Floats) -> Floats:
        """E_cy of concepts [N, K] in [0, 1] with every class, [N, C]."""
        return np.maximum(self.base + concepts @ self.steps, 0) @ self.global_map.T


def sigmoid(odds: Floats) -> Floats:
    return (1 / (1 + np.exp(-np.clip(odds, -40, 40)))).astype(np.float32)


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    result = np.exp(logits - logits.max(-1, keepdims=True))
    return (result / result.sum(-1, keepdims=True)).astype(np.float32)
