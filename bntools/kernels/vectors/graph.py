"""A flat proximity graph: built by insertion and pruning, searched by the codes of the vectors.

Insertion and pruning are those of Vamana (Subramanya and others, DiskANN, 2019) in one pass: a point is linked to
what a walk among the points before it meets, less those that lie behind another neighbour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.vectors import graph_loops
from bntools.kernels.vectors.graph_loops import byte_products
from bntools.kernels.vectors.product import Codebook

__all__ = [
    "CodedRows",
    "Walks",
    "build",
    "byte_products",
    "link",
    "link_pairs",
    "middle",
    "near_columns",
    "search",
]

Floats = NDArray[np.float32]

SPREAD = 1.1
"""How much nearer to another a neighbour must be to be hidden by it: 1.2 of squares, as in DiskANN's program."""
_STEP = 1024
_LEAST = np.float32(-1e30)


class CodedRows(NamedTuple):
    """Words [n, bytes], length factors, biases and cells [n] of coded vectors by position."""

    codes: NDArray[np.uint8]
    factor: Floats
    bias: Floats
    cell: NDArray[np.uint8]


class Walks(NamedTuple):
    """Positions [m, breadth] and scores [m, breadth] that walks met, best first; least scores where they met fewer."""

    positions: NDArray[np.int32]
    scores: Floats


def middle(points: Floats) -> int:
    """The point nearest to the mean of all [n, d]."""
    centre = points.mean(0, dtype=np.float64).astype(np.float32)
    products = np.concatenate(
        [_distances(points[i : i + _STEP], centre) for i in range(0, len(points), _STEP)]
    )
    return int(products.argmin())


def _distances(points: Floats, centre: Floats) -> Floats:
    return np.asarray(((points - centre) ** 2).sum(1))


def build(
    points: Floats,
    degree: int,
    breadth: int,
    *,
    seed: int = 0,
    spread: float = SPREAD,
    advance: Callable[[int], None] = lambda count: None,
) -> NDArray[np.int32]:
    """Neighbours [n, degree] of points [n, d] by distance, -1 behind the last.

    Points come in random order, the middle one first, where every walk of the build begins; one thread, so that the
    same seed gives the same graph.
    """
    n = len(points)
    first = middle(points)
    order = np.random.default_rng((seed, 3)).permutation(n)
    order = np.concatenate([[first], order[order != first]]).astype(np.int32)
    neighbours = np.full((n, degree + degree // 2), graph_loops.NONE, np.int32)
    count, stamps = np.zeros(n, np.int32), np.zeros(n, np.uint32)
    for start in range(0, n, _STEP):
        stop = min(start + _STEP, n)
        graph_loops.insert_all(
            points, order, neighbours, count, degree, min(breadth, n), spread**2, start, stop, stamps
        )
        advance(stop - start)
    graph_loops.shorten_all(points, neighbours, count, degree, spread**2)
    neighbours[np.arange(neighbours.shape[1]) >= count[:, None]] = graph_loops.NONE
    return np.ascontiguousarray(neighbours[:, :degree])


def link(lists: NDArray[np.int32], neighbours: NDArray[np.int32]) -> NDArray[np.int32]:
    """Neighbours [n, degree + degree / 2]: those of `build` [n, degree], and links that queries ask for.

    lists [m, l]: the best positions for each query, best first. Each is linked to the one before and behind it, and
    the best to all, so that a walk that reaches one answer to a like query reaches the others; vectors with the same
    products need not be near each other (after RoarGraph, Chen and others, 2024, which links by projection).
    """
    chain = [(lists[:, :-1], lists[:, 1:]), (lists[:, 1:], lists[:, :-1]),
             (np.broadcast_to(lists[:, :1], lists[:, 1:].shape), lists[:, 1:])]  # fmt: skip
    sources, targets = (np.stack(side, 2).ravel() for side in zip(*chain, strict=True))
    return link_pairs(sources, targets, neighbours)


def link_pairs(
    sources: NDArray[np.int32], targets: NDArray[np.int32], neighbours: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Neighbours [n, degree + degree / 2]: those given [n, degree], and targets [p] by their sources, while there is
    room."""
    n, degree = neighbours.shape
    result = np.full((n, degree + degree // 2), graph_loops.NONE, np.int32)
    result[:, :degree] = neighbours
    graph_loops.link_pairs(sources, targets, result, degree)
    return result


def near_columns(columns: int) -> int:
    """The degree of a graph whose lists have so many columns."""
    return -(-2 * columns // 3)


def search(
    queries: Floats,
    centre: Floats,
    book: Codebook,
    *,
    coded: CodedRows,
    neighbours: NDArray[np.int32],
    entries: NDArray[np.int32],
    breadth: int,
) -> Walks:
    """For each query [m, d] the best rows a walk from its entries [m, e] meets that keeps `breadth` candidates.

    neighbours: as of `link`. centre [m, C]: what each cell adds to the scores of its rows.
    """
    result = Walks(
        np.zeros((len(queries), breadth), np.int32), np.full((len(queries), breadth), _LEAST, np.float32)
    )
    graph_loops.walk_all(
        np.ascontiguousarray(queries), *book.groups, book.words, np.ascontiguousarray(centre), *coded,
        neighbours, near_columns(neighbours.shape[1]), np.ascontiguousarray(entries), *result,
    )  # fmt: skip
    return result
