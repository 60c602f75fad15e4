"""The concept layer: text embeddings as they are, or directions fitted to annotations (CAVs)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.methods.cbm.bottleneck import Floats, activate
from bntools.core.methods.cbm.inputs import Truth
from bntools.core.methods.cbm.metrics import auc_one

CAV_L2 = 0.01
"""Ridge penalty of a concept's logistic regression, in the metric of the whitened embedding."""
_STEPS = 60


@dataclass(frozen=True)
class Bank:
    """vectors [K, d], offsets [K], names; owner [K, C] or None; levels [K, 2] raw score without and with a concept;
    theta [K] or None: of activation `threshold`."""

    vectors: Floats
    offsets: Floats
    names: list[str]
    owner: NDArray[np.bool_] | None
    levels: Floats
    activation: str = "linear"
    theta: Floats | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def at(self, chosen: NDArray[Any]) -> Bank:
        """Some of the concepts."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return replace(
            self, vectors=self.vectors[chosen], offsets=self.offsets[chosen], levels=self.levels[chosen],
            names=[self.names[k] for k in chosen], owner=None if self.owner is None else self.owner[chosen],
            theta=None if self.theta is None else self.theta[chosen],
        )  # fmt: skip

    def raw(self, embeddings: Floats) -> Floats:
        return activate(embeddings @ self.vectors.T + self.offsets, self.activation, self.theta)


def text_bank(vectors: Floats, names: list[str], owner: NDArray[np.bool_] | None = None) -> Bank:
    """Concepts as the embeddings of their names; a name that occurs again is told apart by a number."""
    unique = numbered(names or [f"concept {k}" for k in range(len(vectors))])
    zeros = np.zeros(len(vectors), np.float32)
    return Bank(vectors, zeros, unique, owner, np.full((len(vectors), 2), np.nan, np.float32))


def numbered(names: list[str]) -> list[str]:
    """Names that differ: the second of a name gets (2) behind it, and so on."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def with_levels(bank: Bank, embeddings: Floats, truth: Truth) -> Bank:
    """The mean raw score of rows without and with each annotated concept, for interventions."""
    mine, present = truth.of(bank.names)
    levels, raw = bank.levels.copy(), bank.at(mine).raw(embeddings)
    for column, k in enumerate(mine):
        for value in (0, 1):
            rows = present[:, column] == value
            levels[k, value] = raw[rows, column].mean() if rows.any() else np.nan
    return replace(bank, levels=levels)


def cav_bank(embeddings: Floats, truth: Truth, rows: NDArray[np.int64]) -> tuple[Bank, list[dict[str, Any]]]:
    """Concept directions by ridge logistic regression of each annotation on the embedding, all at once.

    Scores are probabilities, so that 0 and 1 are what an annotator's no and yes are. Fitted on `rows`; returns the
    bank and each concept's positives and AUC on the other rows. Raises BnError (exit 3) where no concept has both.
    """
    present = truth.present
    good = [k for k in range(present.shape[1]) if {0, 1} <= set(np.unique(present[rows, k]).tolist())]
    if not good:
        raise bad_input("no concept is present in some rows and absent in others", "annotations of 1 and 0")
    targets = present[rows][:, good].astype(np.float32)
    vectors, offsets = logistic(embeddings[rows], targets, CAV_L2)
    names = [truth.names[k] for k in good]
    levels = np.tile(np.array([0, 1], np.float32), (len(good), 1))
    bank = Bank(vectors, offsets, names, None, levels, "sigmoid")
    held = np.setdiff1d(np.arange(len(embeddings)), rows)
    scores = bank.raw(embeddings[held])
    quality = []
    for column, k in enumerate(good):
        known = present[held, k] >= 0
        area = auc_one(scores[known, column], present[held, k][known] > 0)
        quality.append({"concept": names[column], "positives": int((present[rows, k] > 0).sum()),
                        "auc": None if np.isnan(area) else area})  # fmt: skip
    return bank, quality


def logistic(x: Floats, targets: Floats, l2: float) -> tuple[Floats, Floats]:
    """Ridge logistic regression of each column of targets [N, K] (-1: unknown) on x [N, d]: vectors, offsets.

    Accelerated steps in the metric of x'x / 4, which bounds every concept's curvature at once (Boehning 1992).
    """
    center = x.mean(0)
    x = x - center
    covariance = (x.T @ x).astype(np.float64) / len(x)
    ridge = l2 * max(float(np.trace(covariance)) / len(covariance), 1e-30)
    inverse = np.linalg.inv(covariance / 4 + ridge * np.eye(len(covariance))).astype(np.float32)
    known = (targets >= 0).astype(np.float32)
    share = (np.maximum(targets, 0).sum(0) + 0.5) / (known.sum(0) + 1)
    weight, bias = (
        np.zeros((targets.shape[1], x.shape[1]), np.float32),
        np.log(share / (1 - share)).astype(np.float32),
    )
    before, momentum = (weight, bias), 1.0
    for _ in range(_STEPS):
        following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        push = np.float32((momentum - 1) / following)
        ahead = (weight + push * (weight - before[0]), bias + push * (bias - before[1]))
        error = (activate(x @ ahead[0].T + ahead[1], "sigmoid") - targets) * known / len(x)
        slope = error.T @ x + np.float32(ridge) * ahead[0]
        before, momentum = (weight, bias), following
        weight, bias = ahead[0] - slope @ inverse, ahead[1] - 4 * error.sum(0)
    return weight, bias - weight @ center
