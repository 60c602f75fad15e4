"""What the estimators of Kraskov and of Kozachenko and Leonenko count: the k-th neighbour and who is nearer in a part.

Three ways to the same numbers. One coordinate: sorting. Few: a k-d tree. Many: matrix products in blocks, where the
norm of each part is Euclidean instead of the maximum, which a product gives and Kraskov's argument allows.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.information.box_tree import BoxTree, build, counts_within, kth_distances

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

TREE_WIDTH = 8
"""Coordinates of both parts together up to which the tree is faster than products (10,000 points, one core)."""
_ROWS = 128


class NeighbourCounts(NamedTuple):
    """Of M queries: k-th joint distance [M], other points nearer than it in x and in y [M], and the queries' rows."""

    radii: Floats
    x: Indices
    y: Indices
    rows: Indices


class Side(NamedTuple):
    """One side of a pair, made once for all its partners: points [N, D], and a sorted column with ranks, or a tree."""

    points: Floats
    ascending: Floats | None = None
    ranks: Indices | None = None
    tree: BoxTree | None = None

    @classmethod
    def of(cls, points: Floats) -> Side:
        """The part of points [N, D] or [N]."""
        points = np.ascontiguousarray(points.reshape(len(points), -1), np.float64)
        if points.shape[1] == 1:
            order = np.argsort(points[:, 0])
            ranks = np.empty(len(order), np.int64)
            ranks[order] = np.arange(len(order))
            return cls(points, points[order, 0], ranks)
        return cls(points, tree=build(points) if points.shape[1] < TREE_WIDTH else None)


def neighbour_counts(x: Side, y: Side, k: int, queries: Indices | None = None) -> NeighbourCounts:
    """Distance of the k-th joint neighbour of each query and how many others are strictly nearer in x and in y.

    queries: rows to measure among all rows; None: all, in the tree's order. Equal to `neighbour_counts_reference`.
    """
    if x.points.shape[1] + y.points.shape[1] > TREE_WIDTH:
        return _by_products(x.points, y.points, k, queries)
    tree = build(np.hstack([x.points, y.points]))
    places = np.arange(len(tree.rows))
    if queries is not None:
        wanted = np.zeros(len(tree.rows), bool)
        wanted[queries] = True
        places = np.flatnonzero(wanted[tree.rows])
    radii = kth_distances(tree, places, k)[:, -1]
    rows = tree.rows[places]
    return NeighbourCounts(radii, nearer(x, rows, radii), nearer(y, rows, radii), rows)


def neighbour_counts_reference(x: Floats, y: Floats, k: int) -> NeighbourCounts:
    """The specification of `neighbour_counts` for up to 8 coordinates; above, each part's norm is Euclidean."""
    order = np.inf if x.shape[1] + y.shape[1] <= TREE_WIDTH else 2
    apart = [np.linalg.norm(part[:, None] - part[None], ord=order, axis=-1) for part in (x, y)]
    joint = np.maximum(*apart)
    np.fill_diagonal(joint, np.inf)
    radii = np.sort(joint, 1)[:, k - 1]
    nearer_in = [(part < radii[:, None]).sum(1) - (radii > 0) for part in apart]
    return NeighbourCounts(radii, nearer_in[0], nearer_in[1], np.arange(len(x)))


def nearer(part: Side, rows: Indices, radii: Floats, closed: bool = False) -> Indices:
    """Points of one part nearer to each row than its radius (`closed`: or just as near), the row itself left out."""
    if part.ranks is not None:
        out = np.empty(len(rows), np.int64)
        limits = np.nextafter(radii, np.inf) if closed else radii
        _count_sorted(part.ascending, part.ranks[rows], limits, out)
    elif part.tree is not None:
        out = counts_within(part.tree, part.points[rows], radii, closed)
    else:
        raise ValueError("a part of many coordinates is counted by products")
    return out - ((radii > 0) | closed)


@numba.njit(cache=True, nogil=True)
def _count_sorted(ascending, ranks, radii, out):  # type: ignore[no-untyped-def]
    """Numbers nearer than the radius to ascending[rank], by a bisection without branches to either side of it.

    It is the distance that is compared, so that ties fall as they do in the other ways.
    """
    for i in range(len(ranks)):
        radius, centre = radii[i], ascending[ranks[i]]
        first, size = 0, ranks[i]
        while size > 0:
            half = (size + 1) // 2
            outside = centre - ascending[first + half - 1] >= radius
            first = first + half if outside else first
            size = size - half if outside else half - 1
        end, size = ranks[i], len(ascending) - ranks[i]
        while size > 0:
            half = (size + 1) // 2
            inside = ascending[end + half - 1] - centre < radius
            end = end + half if inside else end
            size = size - half if inside else half - 1
        out[i] = end - first


def _by_products(x: Floats, y: Floats, k: int, queries: Indices | None) -> NeighbourCounts:
    """Squared distances of 128 queries to all points by one product a part, then one compiled pass."""
    rows = np.arange(len(x)) if queries is None else queries
    parts = [np.ascontiguousarray(part - part.mean(0)) for part in (x, y)]
    squares = [np.square(part).sum(1) for part in parts]
    radii, counts = np.empty(len(rows)), np.empty((2, len(rows)), np.int64)
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        apart = [
            square[block, None] - 2.0 * (part[block] @ part.T) + square
            for part, square in zip(parts, squares, strict=True)
        ]
        end = start + len(block)
        _scan(apart[0], apart[1], block, k, radii[start:end], counts[:, start:end])
    return NeighbourCounts(np.sqrt(radii), counts[0], counts[1], rows)


@numba.njit(cache=True, nogil=True)
def _scan(x, y, rows, k, radii, counts):  # type: ignore[no-untyped-def]
    """k-th smallest of max(x, y) a row [Q, N] and how many of each are below it."""
    best = np.empty(k)
    for i in range(len(rows)):
        best[:] = np.inf
        x[i, rows[i]] = np.inf
        y[i, rows[i]] = np.inf
        for j in range(x.shape[1]):
            distance = max(x[i, j], y[i, j])
            if distance < best[k - 1]:
                slot = k - 1
                while slot > 0 and best[slot - 1] > distance:
                    best[slot] = best[slot - 1]
                    slot -= 1
                best[slot] = distance
        limit = best[k - 1]
        in_x, in_y = 0, 0
        for j in range(x.shape[1]):
            in_x += x[i, j] < limit
            in_y += y[i, j] < limit
        radii[i] = max(limit, 0.0)
        counts[0, i], counts[1, i] = in_x, in_y
