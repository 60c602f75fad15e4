"""From vectors to codes: what was trained, and its use on tile after tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.vector_index import codes
from bntools.core.methods.vector_index.codes import Code
from bntools.core.methods.vector_index.exact import Vectors
from bntools.core.methods.vector_index.index import Cells, Floats, Second, VectorIndex, prepare
from bntools.kernels.vectors import product
from bntools.kernels.vectors.product import Codebook

TILE = 8192
Advance = Callable[[int], None]


class Trained(NamedTuple):
    """What codes a vector x: x B - mean, less its centroid, by `book` or, where there is none, by the plain `code`.

    grid: levels of length factors, None where they are to be fitted to the vectors.
    """

    metric: str
    query_map: Floats
    base_map: Floats
    mean: Floats
    code: str
    book: Codebook | None = None
    centroids: Floats | None = None
    second: str = "none"
    second_mean: Floats | None = None
    grid: Floats | None = None


def trained(index: VectorIndex) -> Trained:
    """What coded the vectors of an index, to code more of them."""
    code, cells, second = index.code, index.cells, index.second
    product_of = code if isinstance(code, codes.ProductCode) else None
    return Trained(
        index.metric, index.query_map, index.base_map, index.mean, index.facts["code"],
        None if product_of is None else product_of.book,
        None if cells is None else cells.centroids,
        index.facts.get("second", "none"),
        None if second is None else second.mean,
        None if product_of is None else product_of.grid,
    )  # fmt: skip


def encode(
    base: Vectors, by: Trained, *, threads: int = 1, advance: Advance = lambda count: None
) -> VectorIndex:
    """Code all rows; memory holds a tile of them, the codes, and for a moment those of the first level twice."""
    columns: dict[str, NDArray[Any]] = {}
    for start in range(0, base.rows, TILE):
        rows = prepare(base.read(start, min(start + TILE, base.rows)), by.metric)
        for name, piece in _encode_tile(rows, by, threads).items():
            if name not in columns:
                columns[name] = np.empty((base.rows, *piece.shape[1:]), piece.dtype)
            columns[name][start : start + len(piece)] = piece
        advance(len(rows))
    cells = None if by.centroids is None else Cells(by.centroids, columns["cell"])
    code: Code
    if by.book is None:
        code = codes.plain_from(columns, by.code, by.base_map.shape[1])
    else:
        order = np.arange(base.rows) if cells is None else np.argsort(cells.cell, kind="stable")
        grid = codes.factor_grid(columns["length"]) if by.grid is None else by.grid
        code = codes.product_code(
            columns.pop("codes"),
            columns["length"],
            by.book,
            width=by.base_map.shape[1],
            grid=grid,
            order=order,
        )
    second = None
    if by.second_mean is not None:
        own = {n.removeprefix(_SECOND): a for n, a in columns.items() if n.startswith(_SECOND)}
        second = Second(codes.plain_from(own, by.second, base.width), by.second_mean)
    return VectorIndex(
        by.metric, by.query_map, by.base_map, by.mean, code, cells, columns.get("norm2"), second
    )


_SECOND = "second."


def _encode_tile(rows: Floats, by: Trained, threads: int) -> dict[str, NDArray[Any]]:
    """Columns of the codes of some rows, by name."""
    x = rows @ by.base_map - by.mean
    result: dict[str, NDArray[Any]] = {}
    if by.metric == "l2":
        result["norm2"] = np.einsum("nd,nd->n", rows, rows)
    if by.second_mean is not None:
        finer = codes.plain_code(rows - by.second_mean, by.second).tensors()
        result |= {_SECOND + name: column for name, column in finer.items()}
    if by.book is None:
        return result | codes.plain_code(x, by.code).tensors()
    if by.centroids is not None:
        near = nearest_centroid(x, by.centroids)
        result["cell"] = near.astype(np.uint8)
        x -= by.centroids[near]
    result["codes"] = product.encode(x, by.book, threads=threads)
    decoded = product.decode(result["codes"], by.book, x.shape[1])
    result["length"] = product.length_factor(x, decoded)
    return result


def nearest_centroid(x: Floats, centroids: Floats) -> NDArray[np.int64]:
    """Index of the nearest centroid [C, d] to each row of x [n, d]."""
    half = 0.5 * np.einsum("cd,cd->c", centroids, centroids)
    return np.argmin(half - x @ centroids.T, axis=1)


def train_cells(sample: Floats, count: int, seed: int) -> Floats:
    """Centroids [C, d] by ten rounds of k-means."""
    random = np.random.default_rng((seed, 1))
    centroids = sample[random.choice(len(sample), count, replace=False)].copy()
    for _ in range(10):
        near = nearest_centroid(sample, centroids)
        order = np.argsort(near, kind="stable")
        size = np.bincount(near, minlength=count)
        alive = np.flatnonzero(size)
        starts = (np.cumsum(size) - size)[alive]
        centroids[alive] = np.add.reduceat(sample[order], starts, axis=0) / size[alive, None]
        empty = np.flatnonzero(size == 0)
        centroids[empty] = sample[random.choice(len(sample), len(empty))]
    return centroids
