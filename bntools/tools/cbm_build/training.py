"""What every method is given: embeddings, classes, the bank, and a division of the rows for choices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Floats
from bntools.kernels.counter_random import permutation
from bntools.kernels.linear.design import DenseDesign, FactoredDesign
from bntools.kernels.linear.softmax import Labels
from bntools.tools.cbm_build.banks.bank import Bank
from bntools.tools.cbm_build.head import Point, Split

_STREAM = 23


@dataclass(frozen=True)
class Training:
    """embeddings [N, d] as the concepts see them, y [N] class indices, rows to fit choices on and rows held out.

    class_vectors [C, d]: embeddings of the classes' names, or None.
    """

    embeddings: Floats
    y: NDArray[np.int64]
    classes: list[str]
    bank: Bank
    part: NDArray[np.int64]
    held: NDArray[np.int64]
    class_vectors: Floats | None = None

    @cached_property
    def design(self) -> FactoredDesign | DenseDesign:
        """Standardised concept scores; as factors where they are linear in the embedding."""
        if self.bank.activation == "linear":
            return FactoredDesign(self.embeddings, self.bank.vectors)
        return DenseDesign(self.bank.raw(self.embeddings))

    @property
    def labels(self) -> Labels:
        return Labels.tally(self.y, len(self.classes))

    @property
    def whole(self) -> Split:
        return Split(self.design, self.labels)

    def division(self, design: FactoredDesign | DenseDesign | None = None) -> tuple[Split, Split]:
        """The rows that choices are fitted on, and those they are judged by."""
        design = self.design if design is None else design
        return tuple(  # type: ignore[return-value]
            Split(design.at(rows), Labels.tally(self.y[rows], len(self.classes)))
            for rows in (self.part, self.held)
        )

    def with_bank(self, bank: Bank) -> Training:
        return replace(self, bank=bank)

    @cached_property
    def centroids(self) -> Floats:
        """Mean embedding of each class, [C, d]."""
        onehot = np.zeros((len(self.classes), len(self.y)), np.float32)
        onehot[self.y, np.arange(len(self.y))] = 1
        return (onehot @ self.embeddings) / np.maximum(onehot.sum(1, keepdims=True), 1)


class Head(NamedTuple):
    """What a method returns: [C, K] weights on standardised scores, [C] bias, and what else it has.

    points: the heads at other sparsities. residual: a map past the concepts. bank: the concept layer, where the method
    made its own. raw: the weights are for scores that are not standardised. notes: its known faults, and its choices.
    """

    weight: Floats
    bias: Floats
    points: list[Point]
    notes: dict[str, object]
    residual: tuple[Floats, Floats] | None = None
    bank: Bank | None = None
    raw: bool = False


def divide(y: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit on and rows held out, `share` of each class; a class of one or two rows stays whole."""
    order = np.asarray(permutation(seed, _STREAM, len(y)), np.int64)
    held = np.zeros(len(y), bool)
    for c in np.unique(y):
        mine = order[y[order] == c]
        if len(mine) > 2:
            held[mine[: max(int(share * len(mine)), 1 if share else 0)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
