"""The softmax likelihood of class scores: loss, probabilities, residuals and the dual that bounds them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Labels(NamedTuple):
    """Class of each row, [N] from 0 on, and how often each class is seen, [C].

    soft [C, N]: probabilities to fit in place of the classes, or None; rows are still counted by their class.
    """

    of: NDArray[np.int64]
    share: NDArray[np.float64]
    soft: Floats | None = None

    @classmethod
    def tally(cls, labels: NDArray[np.int64], classes: int) -> Labels:
        return cls(labels, np.bincount(labels, minlength=classes) / max(len(labels), 1))


def loss(scores: Floats, labels: Labels) -> float:
    """Mean cross-entropy of [C, N] scores."""
    top = scores.max(0)
    total = np.log(np.exp(scores - top).sum(0, dtype=np.float32)) + top
    return float((total - _own(scores, labels)).mean(dtype=np.float64))


def _own(scores: Floats, labels: Labels) -> Floats:
    """Score of each row's class, or the mean of scores under its soft label, [N]."""
    if labels.soft is not None:
        return np.einsum("cn,cn->n", labels.soft, scores)
    return scores[labels.of, np.arange(len(labels.of))]


def residual(scores: Floats, labels: Labels) -> tuple[float, Floats]:
    """Mean cross-entropy of [C, N] scores, and probabilities minus labels, [C, N]."""
    top = scores.max(0)
    result = np.exp(scores - top)
    total = result.sum(0)
    value = float((np.log(total) + top - _own(scores, labels)).mean(dtype=np.float64))
    result /= total
    if labels.soft is not None:
        result -= labels.soft
    else:
        result[labels.of, np.arange(len(labels.of))] -= 1
    return value, result
