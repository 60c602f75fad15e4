"""What the approximate search is held against: the exact best rows, and the recall of others."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.vector_index.index import Floats, Hits, Indices, prepare
from bntools.core.methods.vector_index.searching import best

TILE = 8192


class Vectors(Protocol):
    """Rows that can be read in pieces: bntools.core.datasets.activations.Activations, or `InMemory`."""

    @property
    def rows(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, start: int, stop: int) -> Floats: ...


class InMemory(NamedTuple):
    """An array [n, D] as `Vectors`."""

    array: NDArray[np.floating]

    @property
    def rows(self) -> int:
        return len(self.array)

    @property
    def width(self) -> int:
        return self.array.shape[1]

    def read(self, start: int, stop: int) -> Floats:
        return np.asarray(self.array[start:stop], np.float32)


def exact(base: Vectors, queries: Floats, k: int, metric: str) -> Hits:
    """The k best rows for each query by float32 products; for l2 scores are less the squared distance."""
    queries = prepare(queries, metric)
    rows, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, base.rows, TILE):
        part = prepare(base.read(start, min(start + TILE, base.rows)), metric)
        products = queries @ part.T
        if metric == "l2":
            products -= 0.5 * np.einsum("nd,nd->n", part, part)
        scores = np.concatenate([scores, products], 1)
        names = np.broadcast_to(np.arange(start, start + len(part)), products.shape)
        rows, scores = best(np.concatenate([rows, names], 1), scores, k)
    if metric == "l2":
        scores = 2 * scores - np.einsum("md,md->m", queries, queries)[:, None]
    return Hits(rows, scores)


def recalls(rows: Indices, truth: Hits, scores: Floats) -> NDArray[np.float64]:
    """For each query the share of the true k best among `rows` [m, r]; `scores` [m, r] are the rows' exact scores.

    A row counts when its exact score reaches the k-th best, so that a duplicate is as good as the row it repeats.
    """
    k = truth.rows.shape[1]
    least = truth.scores[:, -1:]
    slack = 1e-6 * np.maximum(np.abs(least), 1.0)
    return np.minimum((scores >= least - slack).sum(1), k) / k


def exact_scores(base: Vectors, queries: Floats, rows: Indices, metric: str) -> Floats:
    """Exact scores of chosen rows [m, r] for each query."""
    queries = prepare(queries, metric)
    result = np.empty(rows.shape, np.float32)
    order = np.argsort(rows, axis=None)
    flat, of = rows.reshape(-1)[order], order // rows.shape[1]
    target = result.reshape(-1)
    for start in range(0, base.rows, TILE):
        low, high = np.searchsorted(flat, (start, start + TILE))
        if low == high:
            continue
        part = prepare(base.read(start, min(start + TILE, base.rows)), metric)
        for a in range(low, high, TILE):
            b = min(a + TILE, high)
            x, q = part[flat[a:b] - start], queries[of[a:b]]
            products = np.einsum("nd,nd->n", x, q)
            if metric == "l2":
                products = -np.einsum("nd,nd->n", x - q, x - q)
            target[order[a:b]] = products
    return result
