"""Standardised scores of concepts as a design matrix that is never formed where it has low rank."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
BLOCK = 1 << 14
"""Rows worked on at once: 32 MB of 512 float32 columns."""


class Design(Protocol):
    """What a linear model asks of its columns, each of mean 0 and deviation 1 over the rows."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def scores(self, weight: Floats) -> Floats:
        """[C, K] weights to [C, N] scores."""
        ...

    def gradient(self, residual: Floats) -> Floats:
        """[C, N] residuals to [C, K]: their means against each column."""
        ...

    def gram(self) -> Floats:
        """[K, K] mean products of columns: their correlations."""
        ...


class Standard(NamedTuple):
    """Mean and inverse deviation of each column, both [K]; a constant column has inverse 0."""

    mean: NDArray[np.float64]
    inverse: NDArray[np.float64]


class FactoredDesign:
    """Scores that are linear in an embedding of fewer dimensions: X = (E - mean) V' / std, kept as its factors.

    E [N, d], V [K, d]. A product with X costs N d + d K operations a class in place of N K, and the memory is E's.
    """

    _formed: tuple[Floats, NDArray[np.bool_]] | None = None

    def __init__(self, embeddings: Floats, vectors: Floats, standard: tuple[Floats, Standard] | None = None):
        if standard is None:
            center = embeddings.mean(0, dtype=np.float64).astype(np.float32)
            self.embeddings = embeddings - center
            self._covariance = _products(self.embeddings) / len(embeddings)
            wide = vectors.astype(np.float64)
            variance = np.einsum("kd,kd->k", wide @ self._covariance, wide)
            norm = np.einsum("kd,kd->k", wide, wide) * max(float(np.trace(self._covariance)), 1e-30)
            alive = variance > 1e-10 * np.maximum(norm, 1e-30)
            inverse = np.where(alive, 1 / np.sqrt(np.where(alive, variance, 1)), 0.0)
            self.standard = Standard(wide @ center, inverse)
            self.center = center
        else:
            self.center, self.standard = standard
            self.embeddings = embeddings - self.center
            self._covariance = None
        self.vectors = np.ascontiguousarray(vectors * self.standard.inverse[:, None], np.float32)

    @property
    def rows(self) -> int:
        return len(self.embeddings)

    @property
    def columns(self) -> int:
        return len(self.vectors)

    def formed(self, columns: NDArray[np.int64]) -> Floats:
        """Scores of some columns, [n, N]; what was formed once is kept."""
        if self._formed is None:
            self._formed = (np.empty((self.columns, self.rows), np.float32), np.zeros(self.columns, bool))
        values, there = self._formed
        fresh = np.unique(columns[~there[columns]])
        if len(fresh):
            values[fresh] = self.vectors[fresh] @ self.embeddings.T
            there[fresh] = True
        return values[columns]

    def scores(self, weight: Floats) -> Floats:
        return (weight @ self.vectors) @ self.embeddings.T

    def gradient(self, residual: Floats) -> Floats:
        return ((residual @ self.embeddings) @ self.vectors.T) / np.float32(self.rows)

    def gram(self) -> Floats:
        if self._covariance is None:
            self._covariance = _products(self.embeddings) / self.rows
        return ((self.vectors @ self._covariance.astype(np.float32)) @ self.vectors.T).astype(np.float32)

    def at(self, rows: NDArray[np.int64]) -> FactoredDesign:
        """The same columns on some of the rows, standardised as here."""
        part = object.__new__(FactoredDesign)
        part.embeddings, part.vectors = self.embeddings[rows], self.vectors
        part.center, part.standard, part._covariance = self.center, self.standard, None
        return part


class DenseDesign:
    """Scores given as they are, [N, K]: codes of an autoencoder, sigmoids, whatever is not linear."""

    _formed: Floats | None = None

    def __init__(self, values: Floats, standard: Standard | None = None):
        if standard is None:
            mean = values.mean(0, dtype=np.float64)
            deviation = np.sqrt(np.maximum(values.astype(np.float32).var(0, dtype=np.float64), 0))
            alive = deviation > 1e-7 * np.maximum(np.abs(mean), 1e-30)
            standard = Standard(mean, np.where(alive, 1 / np.where(alive, deviation, 1), 0.0))
        self.standard = standard
        self.values = np.asarray((values - standard.mean.astype(np.float32)), np.float32)
        self.values *= standard.inverse.astype(np.float32)

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    def formed(self, columns: NDArray[np.int64]) -> Floats:
        """Scores of some columns, [n, N]; the transpose is kept."""
        if self._formed is None:
            self._formed = np.ascontiguousarray(self.values.T)
        return self._formed[columns]

    def scores(self, weight: Floats) -> Floats:
        return weight @ self.values.T

    def gradient(self, residual: Floats) -> Floats:
        return (residual @ self.values) / np.float32(self.rows)

    def gram(self) -> Floats:
        return (_products(self.values) / self.rows).astype(np.float32)

    def at(self, rows: NDArray[np.int64]) -> DenseDesign:
        """The same columns on some of the rows, standardised as here."""
        part = object.__new__(DenseDesign)
        part.values, part.standard = self.values[rows], self.standard
        return part


def _products(x: Floats) -> NDArray[np.float64]:
    """x'x, single precision within a block of rows, double across blocks."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        total += block.T @ block
    return total
