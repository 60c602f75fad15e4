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
    """What codes a vector x: x B - mean, less its centroid, by `book` or, where there is none, by the plain `code`."""

    metric: str
    query_map: Floats
    base_map: Floats
    mean: Floats
    code: str
    book: Codebook | None = None
    centroids: Floats | None = None
    second: str = "none"
    second_mean: Floats | None = None


def trained(index: VectorIndex) -> Trained:
    """What coded the vectors of an index, to code more of them."""
    code, cells, second = index.code, index.cells, index.second
    return Trained(
        index.metric, index.query_map, index.base_map, index.mean, index.facts["code"],
        code.book if isinstance(code, codes.ProductCode) else None,
        None if cells is None else cells.centroids,
        index.facts.get("second", "none"),
        None if second is None else second.mean,
    )  # fmt: skip


def encode(
    base: Vectors, by: Trained, *, threads: int = 1, advance: Advance = lambda count: None
) -> VectorIndex:
    """Code all rows, a tile in memory at a time beside the codes."""
    pieces: list[dict[str, Any]] = []
    for start in range(0, base.rows, TILE):
        rows = prepare(base.read(start, min(start + TILE, base.rows)), by.metric)
        pieces.append(_encode_tile(rows, by, threads))
        advance(len(rows))

    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([piece[name] for piece in pieces])

    cells = None if by.centroids is None else Cells(by.centroids, whole("cell"))
    code: Code
    if by.book is None:
        code = codes.joined([piece["code"] for piece in pieces])
    else:
        order = slice(None) if cells is None else np.argsort(cells.cell, kind="stable")
        code = codes.product_code(
            whole("codes")[order], whole("factor")[order], by.book, by.base_map.shape[1]
        )
    second = None
    if by.second_mean is not None:
        second = Second(codes.joined([piece["second"] for piece in pieces]), by.second_mean)
    return VectorIndex(
        by.metric, by.query_map, by.base_map, by.mean, code, cells,
        whole("norm2") if by.metric == "l2" else None, second,
    )  # fmt: skip


def _encode_tile(rows: Floats, by: Trained, threads: int) -> dict[str, Any]:
    x = rows @ by.base_map - by.mean
    result: dict[str, Any] = {}
    if by.metric == "l2":
        result["norm2"] = np.einsum("nd,nd->n", rows, rows)
    if by.second_mean is not None:
        result["second"] = codes.plain_code(rows - by.second_mean, by.second)
    if by.book is None:
        return {**result, "code": codes.plain_code(x, by.code)}
    if by.centroids is not None:
        near = nearest_centroid(x, by.centroids)
        result["cell"] = near.astype(np.uint8)
        x -= by.centroids[near]
    result["codes"] = product.encode(x, by.book, threads=threads)
    decoded = product.decode(result["codes"], by.book, x.shape[1])
    result["factor"] = product.length_factor(x, decoded)
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
