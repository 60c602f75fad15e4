"""A vector index: what is known of its vectors, in one part or several."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.vector_index.codes import AdaptiveCode, Code, HalfCode
from bntools.kernels.vectors.locally_adaptive import Adaptive

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Bits = NDArray[np.uint8]
METRICS = ("ip", "cos", "l2")
DEAD = np.float32(-1e30)
"""Score of a row that was taken out: below every other, and finite, as compiled loops with fast sums need."""


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
class Graph:
    """Positions to go on to from each position [n, degree + degree / 2], and one to enter at by cell [C].

    The first `degree` are near ones, the others those that queries asked for, both with -1 behind the last.
    scale [d]: what coordinates were multiplied by before distances were taken; zero for those left out.
    """

    neighbours: NDArray[np.int32]
    entry: NDArray[np.int32]
    scale: Floats


@dataclass(frozen=True)
class VectorIndex:
    """Vectors coded for products with queries.

    A query q [D] becomes q A with `query_map` A [D, d], a vector x becomes x B with `base_map`; coded is x B less
    `mean` [d], and less its centroid where there are cells. norm2 [n], by row, for l2. names: [n] what to call rows.
    dead: a bit a row, from the lowest bit of the first byte on, set where the row was taken out. segments: indices
    with the same maps that hold the rows behind these; `parts` are this one and they. Rows count through all parts.
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
    graph: Graph | None = None
    dead: Bits | None = None
    segments: tuple[VectorIndex, ...] = ()

    def __len__(self) -> int:
        """Vectors that can be found: the rows of all parts but those taken out."""
        return sum(part.living for part in self.parts)

    @property
    def parts(self) -> tuple[VectorIndex, ...]:
        """This part and the segments behind it."""
        return (self, *self.segments)

    @property
    def rows(self) -> int:
        """Rows of all parts, those taken out among them."""
        return sum(len(part.code) for part in self.parts)

    @cached_property
    def first_rows(self) -> Indices:
        """The row at which each part begins, and the number of rows [parts + 1]."""
        return np.cumsum([0, *(len(part.code) for part in self.parts)])

    @property
    def width(self) -> int:
        """D, the coordinates of a query."""
        return len(self.query_map)

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """Whether each row of this part is there still [n]."""
        if self.dead is None:
            return np.ones(len(self.code), np.bool_)
        return np.unpackbits(self.dead, count=len(self.code), bitorder="little") == 0

    @cached_property
    def living(self) -> int:
        """Rows of this part that were not taken out."""
        return len(self.code) if self.dead is None else int(self.alive.sum())

    @cached_property
    def ids(self) -> Indices:
        """What to call the rows of all parts; the number of the row where nothing else is known."""
        own = [
            np.arange(first, first + len(part.code)) if part.names is None else part.names
            for first, part in zip(self.first_rows[:-1], self.parts, strict=True)
        ]
        return np.concatenate(own)

    @cached_property
    def order(self) -> Indices:
        """The row of each position."""
        if self.cells is None:
            return np.arange(len(self.code))
        return np.argsort(self.cells.cell, kind="stable")

    @cached_property
    def starts(self) -> Indices:
        """Where the positions of each cell start [C + 1]."""
        if self.cells is None:
            return np.array([0, len(self.code)])
        sizes = np.bincount(self.cells.cell, minlength=len(self.cells.centroids))
        return np.concatenate([[0], np.cumsum(sizes)])

    @cached_property
    def sizes(self) -> Indices:
        """How many rows of each cell are there still [C]."""
        if self.dead is None:
            return np.diff(self.starts)
        if self.cells is None:
            return np.array([self.living])
        return np.bincount(self.cells.cell[self.alive], minlength=len(self.cells.centroids))

    @cached_property
    def cell_of(self) -> NDArray[np.uint8]:
        """The cell of each position."""
        if self.cells is None:
            return np.zeros(len(self.code), np.uint8)
        return self.cells.cell[self.order]

    @cached_property
    def norm_bias(self) -> Floats:
        """What is added to the score of each position: nothing, or -|x|^2 / 2 for l2."""
        if self.norm2 is None:
            return np.zeros(len(self.code), np.float32)
        return (-0.5 * self.norm2[self.order]).astype(np.float32)

    @cached_property
    def bias(self) -> Floats:
        """`norm_bias`, and DEAD where a row was taken out."""
        if self.dead is None:
            return self.norm_bias
        return np.where(self.alive[self.order], self.norm_bias, DEAD)

    def bytes_per_vector(self) -> float:
        """Bytes of a vector but for re-ranking: code, cell and norm; tables that all vectors share are not in it."""
        cell = 0 if self.cells is None else 1
        return self.code.bytes_per_vector() + cell + (0 if self.norm2 is None else 4)


def prepare(rows: Floats, metric: str) -> Floats:
    """Rows as they are compared: of length 1 for cos."""
    if metric != "cos":
        return np.ascontiguousarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def select(code: Code, rows: Indices) -> Code:
    """The same code with some of its vectors; of product codes not offered, which lie in blocks."""
    if isinstance(code, AdaptiveCode):
        residual = None if code.residual is None else code.residual[rows]
        parts = Adaptive(code.code.codes[rows], code.code.low[rows], code.code.step[rows])
        return AdaptiveCode(parts, code.bits, code.width, residual)
    assert isinstance(code, HalfCode)
    return HalfCode(code.values[rows])
