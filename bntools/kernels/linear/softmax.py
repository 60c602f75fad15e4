"""The softmax likelihood of class scores: loss, probabilities, residuals and the dual that bounds them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Labels(NamedTuple):
    """Class of each row, [N] from 0 on, and how often each class is seen, [C]."""

    of: NDArray[np.int64]
    share: NDArray[np.float64]

    @classmethod
    def tally(cls, labels: NDArray[np.int64], classes: int) -> Labels:
        return cls(labels, np.bincount(labels, minlength=classes) / max(len(labels), 1))


def loss(scores: Floats, labels: Labels) -> float:
    """Mean cross-entropy of [C, N] scores."""
    top = scores.max(0)
    total = np.log(np.exp(scores - top).sum(0, dtype=np.float32)) + top
    return float((total - scores[labels.of, np.arange(len(labels.of))]).mean(dtype=np.float64))


def residual(scores: Floats, labels: Labels) -> tuple[float, Floats]:
    """Mean cross-entropy of [C, N] scores, and probabilities minus labels, [C, N]."""
    top = scores.max(0)
    result = np.exp(scores - top)
    total = result.sum(0)
    rows = np.arange(len(labels.of))
    value = float((np.log(total) + top - scores[labels.of, rows]).mean(dtype=np.float64))
    result /= total
    result[labels.of, rows] -= 1
    return value, result
