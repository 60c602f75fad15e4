"""Whether annotations can teach concepts at all: co-occurrence, class-level concepts, rank (arXiv 2402.00912)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.inputs import Truth

TOGETHER = 0.95
"""Correlation at which two concepts cannot be told apart."""
_SHOWN = 10


def audit(truth: Truth, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Numbers of pairs that go together, of concepts that are functions of the class, of constant ones; effective rank.

    effective_rank: exp of the entropy of the correlation matrix's spectrum; of K independent concepts it is K. Unknown
    annotations count as absent here.
    """
    present = (truth.present > 0).astype(np.float64)
    deviation = present.std(0)
    live = np.flatnonzero(deviation > 0)
    standard = (present[:, live] - present[:, live].mean(0)) / deviation[live]
    phi = standard.T @ standard / len(present)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(np.triu(np.abs(phi) >= TOGETHER, 1))]
    classes, y = np.unique(labels, return_inverse=True)
    means = np.stack([present[y == c].mean(0) for c in range(len(classes))])
    of_class = [k for k in live if ((means[:, k] == 0) | (means[:, k] == 1)).all()]
    spectrum = np.maximum(np.linalg.eigvalsh(phi), 0) if len(live) else np.zeros(1)
    share = spectrum / max(float(spectrum.sum()), 1e-30)
    rank = float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()))
    names = truth.names
    shown = [[names[live[i]], names[live[j]], round(float(phi[i, j]), 4)] for i, j in pairs[:_SHOWN]]
    return {
        "concepts": len(names), "constant": len(names) - len(live), "pairs_together": len(pairs), "pairs": shown,
        "class_level": [names[k] for k in of_class[:_SHOWN]], "class_level_count": len(of_class),
        "effective_rank": rank, "unknown": float((truth.present < 0).mean()),
        "findings": _findings(len(pairs), len(of_class), len(names) - len(live), shown),
    }  # fmt: skip


def _findings(pairs: int, of_class: int, constant: int, shown: list[list[Any]]) -> list[dict[str, str]]:
    result = []
    if pairs:
        first = f", such as {shown[0][0]} and {shown[0][1]}"
        result.append({"what": "always together", "detail": f"{pairs} pairs of concepts{first}"})
    if of_class:
        result.append(
            {"what": "class-level", "detail": f"{of_class} concepts are the same in all rows of each class"}
        )
    if constant:
        result.append({"what": "constant", "detail": f"{constant} concepts are never or always present"})
    return result
