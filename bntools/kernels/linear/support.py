"""A design of the columns that each class uses: products cost N operations a weight, whatever the width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.linear.design import DenseDesign, Design, FactoredDesign, Floats

_LARGEST = 1 << 28
"""Bytes of all columns of a design up to which those in use are formed and kept."""
_SHARE = 8
"""A weight's column is read from memory once a product: so many times slower than a product of dense matrices."""


class SupportDesign:
    """columns [nnz, N]: standardised scores of each class's concepts, one class after the other.

    support, starts: as in ConceptSupport. Gradients are 0 off the support.
    """

    def __init__(self, columns: Floats, support: NDArray[np.int64], starts: NDArray[np.int64], width: int):
        self._values, self._support, self._starts = columns, support, starts
        self.rows, self.columns = columns.shape[1], width

    def scores(self, weight: Floats) -> Floats:
        result = np.empty((len(weight), self.rows), np.float32)
        for c, (start, stop) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            np.matmul(weight[c, self._support[start:stop]], self._values[start:stop], out=result[c])
        return result

    def gradient(self, residual: Floats) -> Floats:
        result = np.zeros((len(residual), self.columns), np.float32)
        for c, (start, stop) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            result[c, self._support[start:stop]] = self._values[start:stop] @ residual[c]
        result /= np.float32(self.rows)
        return result

    def gram(self) -> Floats:
        raise NotImplementedError("the Gram matrix is that of the design it was taken from")


def narrowed(design: Design, support: NDArray[np.int64], starts: NDArray[np.int64]) -> Design:
    """The design of a support where that is cheaper, else the design itself."""
    if not isinstance(design, FactoredDesign | DenseDesign):
        return design
    classes, inner = len(starts) - 1, design.columns
    if isinstance(design, FactoredDesign):
        inner = design.embeddings.shape[1]
    small = 4 * design.rows * design.columns <= _LARGEST
    if not small or _SHARE * len(support) > classes * inner:
        return design
    return SupportDesign(design.formed(support), support, starts, design.columns)
