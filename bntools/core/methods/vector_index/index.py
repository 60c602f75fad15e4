"""A vector index in memory, and the search over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.vector_index.codes import TILE, Code, ProductCode
from bntools.kernels.vectors import loops
from bntools.kernels.vectors.locally_adaptive import Adaptive
from bntools.kernels.vectors.product import spread

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
METRICS = ("ip", "cos", "l2")
_QUERIES = 64


class Hits(NamedTuple):
    """Rows [m, k] and scores [m, k] of the best vectors for each query, best first, of equal ones the lower row."""

    rows: Indices
    scores: Floats


@dataclass(frozen=True)
class Cells:
    """Which of C centroids [C, d] each row was coded relative to: cell [n] by row. Positions are sorted by cell."""

    centroids: Floats
    cell: NDArray[np.uint8]


@dataclass(frozen=True)
class Second:
    """A finer code of the vectors in their own space, by row, for re-ranking: mean [D] + code."""

    code: Code
    mean: Floats


@dataclass(frozen=True)
class VectorIndex:
    """Vectors coded for products with queries.

    A query q [D] becomes q A with `query_map` A [D, d], a vector x becomes x B with `base_map`; coded is x B less
    `mean` [d], and less its centroid where there are cells. norm2 [n], by row, for l2. names: [n] what to call rows.
    """

    metric: str
    query_map: Floats
    base_map: Floats
    mean: Floats
    code: Code
    cells: Cells | None = None
    norm2: Floats | None = None
    second: Second | None = None
    names: Indices | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.code)

    @property
    def width(self) -> int:
        """D, the coordinates of a query."""
        return len(self.query_map)

    @cached_property
    def order(self) -> Indices:
        """The row of each position."""
        if self.cells is None:
            return np.arange(len(self))
        return np.argsort(self.cells.cell, kind="stable")

    @cached_property
    def starts(self) -> Indices:
        """Where the positions of each cell start [C + 1]."""
        if self.cells is None:
            return np.array([0, len(self)])
        sizes = np.bincount(self.cells.cell, minlength=len(self.cells.centroids))
        return np.concatenate([[0], np.cumsum(sizes)])

    @cached_property
    def bias(self) -> Floats:
        """What is added to the score of each position: nothing, or -|x|^2 / 2 for l2."""
        if self.norm2 is None:
            return np.zeros(len(self), np.float32)
        return (-0.5 * self.norm2[self.order]).astype(np.float32)

    def bytes_per_vector(self) -> float:
        """Bytes of a vector but for re-ranking: code, cell and norm; tables that all vectors share are not in it."""
        cell = 0 if self.cells is None else 1
        return self.code.bytes_per_vector() + cell + (0 if self.norm2 is None else 4)


def prepare(rows: Floats, metric: str) -> Floats:
    """Rows as they are compared: of length 1 for cos."""
    if metric != "cos":
        return np.ascontiguousarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def search(
    index: VectorIndex,
    queries: Floats,
    k: int,
    *,
    rerank: int = 0,
    probe: float = 1.0,
    threads: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> Hits:
    """The k best rows for each query [m, D] by the codes, approximate scores with them.

    rerank: take so many by the first code and order them by the second. probe: share of the vectors whose cells are
    visited, the cells with the best centroids first. Scores are products, for cos cosines, for l2 less the squared
    distance.
    """
    queries = prepare(queries, index.metric)
    first = min(max(rerank, k) if index.second is not None else k, len(index))
    result = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    _ = index.order, index.starts, index.bias  # cached before threads ask for them

    def part(number: int) -> None:
        rows = slice(number * _QUERIES, (number + 1) * _QUERIES)
        block = queries[rows]
        mapped = block @ index.query_map
        if isinstance(index.code, ProductCode):
            hits = _by_tables(index, mapped, first, probe)
        else:
            hits = _by_decoding(index, mapped, first)
        if rerank and index.second is not None:
            hits = _rerank(index, block, hits)
        scores = hits.scores[:, :k]
        if index.metric == "l2":
            scores = 2 * scores - np.einsum("md,md->m", block, block)[:, None]
        result.rows[rows], result.scores[rows] = hits.rows[:, :k], scores
        advance(len(block))

    spread(part, -(-len(queries) // _QUERIES), threads)
    return result


def _by_tables(index: VectorIndex, mapped: Floats, k: int, probe: float) -> Hits:
    """Scan product codes: of each query a table of products with every word, of each vector a sum of look-ups."""
    code = index.code
    assert isinstance(code, ProductCode)
    groups, words = code.book
    table = np.empty((code.blocks.shape[1], loops.WORDS), np.float32)
    factors = code.factors()
    offsets = mapped @ index.mean
    centre = offsets[:, None] if index.cells is None else offsets[:, None] + mapped @ index.cells.centroids.T
    hits = Hits(np.zeros((len(mapped), k), np.int64), np.full((len(mapped), k), -np.inf, np.float32))
    for i, query in enumerate(mapped):
        loops.tables(query, groups.order, groups.start, words, table)
        cells = visited(centre[i], index.starts, probe, k)
        loops.scan_cells(
            code.blocks, table, cells, index.starts, factors, index.bias, centre[i], index.order,
            hits.scores[i], hits.rows[i],
        )  # fmt: skip
    return Hits(hits.rows[:, ::-1], hits.scores[:, ::-1])


def visited(centre: Floats, starts: Indices, probe: float, k: int) -> Indices:
    """The cells to visit, best first: as many as hold the share `probe` of the vectors, and k of them at least."""
    order = np.argsort(-centre, kind="stable")
    if probe >= 1:
        return order
    reached = np.cumsum((starts[1:] - starts[:-1])[order])
    wanted = max(probe * starts[-1], k)
    return order[: int(np.searchsorted(reached, wanted)) + 1]


def _by_decoding(index: VectorIndex, mapped: Floats, k: int) -> Hits:
    """Decode tiles of vectors and multiply."""
    rows, scores = np.zeros((len(mapped), 0), np.int64), np.zeros((len(mapped), 0), np.float32)
    offset = (mapped @ index.mean)[:, None]
    for start in range(0, len(index), TILE):
        stop = min(start + TILE, len(index))
        part = mapped @ index.code.decode(start, stop).T + offset + index.bias[start:stop]
        scores = np.concatenate([scores, part], 1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, stop), part.shape)], 1)
        rows, scores = best(rows, np.asarray(scores, np.float32), k)
    return Hits(rows, scores)


def best(rows: Indices, scores: Floats, k: int) -> Hits:
    """The k greatest scores of each line, descending, of equal ones the lower row first."""
    if scores.shape[1] > k:
        least = np.partition(scores, -k, axis=1)[:, -k]
        above = scores > least[:, None]
        ties = scores == least[:, None]
        # of the ties the lowest rows: rows ascend within a line where scores are taken tile by tile
        room = k - above.sum(1, keepdims=True)
        keep = above | (ties & (np.cumsum(ties, 1) <= room))
        rows, scores = rows[keep].reshape(-1, k), scores[keep].reshape(-1, k)
    order = np.lexsort((rows, -scores), axis=1)
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def _rerank(index: VectorIndex, queries: Floats, hits: Hits) -> Hits:
    """Order what the first code selected by the second."""
    assert index.second is not None
    scores = np.empty_like(hits.scores)
    for i, (query, rows) in enumerate(zip(queries, hits.rows, strict=True)):
        finer = rows_of(index.second.code, rows) + index.second.mean
        scores[i] = finer @ query
        if index.norm2 is not None:
            scores[i] -= 0.5 * index.norm2[rows]
    return best(hits.rows, scores, hits.rows.shape[1])


def rows_of(code: Code, rows: Indices) -> Floats:
    """Decode single vectors of a second code by row."""
    return select(code, rows).decode(0, len(rows))


def select(code: Code, rows: Indices) -> Code:
    """The same code with some of its vectors; of product codes not offered, which lie in blocks."""
    from bntools.core.methods.vector_index.codes import AdaptiveCode, HalfCode

    if isinstance(code, AdaptiveCode):
        residual = None if code.residual is None else code.residual[rows]
        parts = Adaptive(code.code.codes[rows], code.code.low[rows], code.code.step[rows])
        return AdaptiveCode(parts, code.bits, code.width, residual)
    assert isinstance(code, HalfCode)
    return HalfCode(code.values[rows])
