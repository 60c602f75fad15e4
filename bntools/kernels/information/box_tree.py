"""A k-d tree under the maximum norm: k-th neighbour distances and counts within a distance, in compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_LEAF = 12
"""Points of a leaf at most: 8 to 16 took the same time, 4 and 32 a fifth more."""


class BoxTree(NamedTuple):
    """Coordinates in the tree's order [D, N], their rows [N], each node's range [nodes, 2] and box [nodes, 2 D].

    The children of node i are 2 i + 1 and 2 i + 2; every leaf lies on the last level. A box is the least and the
    greatest of each coordinate in turn.
    """

    columns: Floats
    rows: Indices
    spans: Indices
    boxes: Floats


def build(points: Floats) -> BoxTree:
    """The tree of points [N, D]: halves at the median of the widest coordinate until at most 12 points are left.

    Points of a plane are halved along x in the upper half of the levels and along y in the lower, which sorting does.
    """
    points = np.ascontiguousarray(points, np.float64)
    count, width = points.shape
    levels = 0
    while count > _LEAF << levels:
        levels += 1
    spans, boxes = (
        np.zeros((2 ** (levels + 1) - 1, 2), np.int64),
        np.empty((2 ** (levels + 1) - 1, 2 * width)),
    )
    _halve(spans, count)
    if width == 2:
        rows = np.argsort(points[:, 0])
        strips = 2 ** ((levels + 1) // 2)
        heights = points[rows, 1]
        for start, end in spans[strips - 1 : 2 * strips - 1].tolist():
            rows[start:end] = rows[start:end][np.argsort(heights[start:end])]
    else:
        rows = np.arange(count)
        _divide(points, rows, spans)
    columns = np.ascontiguousarray(points[rows].T)
    _enclose(columns, spans, boxes)
    return BoxTree(columns, rows, spans, boxes)


def kth_distances(tree: BoxTree, queries: Indices, k: int) -> Floats:
    """Distance [M, k] to the nearest k other points of each query, ascending; queries: places in the tree's order."""
    out = np.empty((len(queries), k))
    loop = _nearest_in_plane if len(tree.columns) == 2 else _nearest
    loop(tree.columns, tree.spans, tree.boxes, queries, out)
    return out


def counts_within(tree: BoxTree, centres: Floats, radii: Floats, closed: bool = False) -> Indices:
    """How many points of the tree lie nearer to each centre [M, D] than its radius [M]; `closed`: or just as near."""
    out = np.zeros(len(centres), np.int64)
    limits = np.nextafter(radii, np.inf) if closed else radii
    _count(tree.columns, tree.spans, tree.boxes, np.ascontiguousarray(centres, np.float64), limits, out)
    return out


@numba.njit(cache=True, nogil=True)
def _halve(spans, count):  # type: ignore[no-untyped-def]
    spans[0, 1] = count
    for node in range(len(spans) // 2):
        start, end = spans[node, 0], spans[node, 1]
        middle = (start + end) // 2
        spans[2 * node + 1, 0], spans[2 * node + 1, 1] = start, middle
        spans[2 * node + 2, 0], spans[2 * node + 2, 1] = middle, end


@numba.njit(cache=True, nogil=True)
def _divide(points, rows, spans):  # type: ignore[no-untyped-def]
    """Halve the rows of each inner node by selection along its widest coordinate."""
    width = points.shape[1]
    for node in range(len(spans) // 2):
        start, end = spans[node]
        widest, extent = 0, -1.0
        for d in range(width):
            low, high = np.inf, -np.inf
            for place in range(start, end):
                low, high = min(low, points[rows[place], d]), max(high, points[rows[place], d])
            if high - low > extent:
                widest, extent = d, high - low
        _select(points[:, widest], rows, start, end - 1, (start + end) // 2)


@numba.njit(cache=True, nogil=True)
def _select(values, rows, low, high, middle):  # type: ignore[no-untyped-def]
    """Hoare's selection: afterwards rows[middle] is where sorting would put it, smaller ones before it."""
    while low < high:
        pivot = values[rows[(low + high) // 2]]
        i, j = low, high
        while i <= j:
            while values[rows[i]] < pivot:
                i += 1
            while values[rows[j]] > pivot:
                j -= 1
            if i <= j:
                rows[i], rows[j] = rows[j], rows[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@numba.njit(cache=True, nogil=True)
def _enclose(columns, spans, boxes):  # type: ignore[no-untyped-def]
    """Boxes of the leaves from their points, of the nodes above from their children."""
    inner = len(spans) // 2
    for node in range(len(spans) - 1, -1, -1):
        for d in range(len(columns)):
            if node < inner:
                left, right = boxes[2 * node + 1], boxes[2 * node + 2]
                boxes[node, 2 * d] = min(left[2 * d], right[2 * d])
                boxes[node, 2 * d + 1] = max(left[2 * d + 1], right[2 * d + 1])
                continue
            low, high = np.inf, -np.inf
            for place in range(spans[node, 0], spans[node, 1]):
                low, high = min(low, columns[d, place]), max(high, columns[d, place])
            boxes[node, 2 * d], boxes[node, 2 * d + 1] = low, high


@numba.njit(cache=True, nogil=True)
def _nearest(columns, spans, boxes, queries, out):  # type: ignore[no-untyped-def]
    """From the query's own leaf upwards: of each sibling passed, what is nearer than the k-th so far is searched."""
    width, k, inner = len(columns), out.shape[1], len(spans) // 2
    stack, query, apart = np.empty(64, np.int64), np.empty(width), np.empty(2 * _LEAF)
    for row in range(len(queries)):
        place = queries[row]
        for d in range(width):
            query[d] = columns[d, place]
        best = out[row]
        best[:] = np.inf
        node = 0
        while node < inner:
            node = 2 * node + 1 + (place >= spans[2 * node + 2, 0])
        _scan_leaf(columns, spans[node, 0], spans[node, 1], place, query, apart, best)
        while node:
            stack[0], depth = node + 1 if node % 2 else node - 1, 1
            node = (node - 1) // 2
            while depth:
                depth -= 1
                other = stack[depth]
                if _to_box(query, boxes[other], width) >= best[k - 1]:
                    continue
                if other >= inner:
                    _scan_leaf(columns, spans[other, 0], spans[other, 1], place, query, apart, best)
                    continue
                near, far = 2 * other + 1, 2 * other + 2
                if _to_box(query, boxes[far], width) < _to_box(query, boxes[near], width):
                    near, far = far, near
                stack[depth], stack[depth + 1] = far, near
                depth += 2


@numba.njit(cache=True, nogil=True)
def _scan_leaf(columns, start, end, place, query, apart, best):  # type: ignore[no-untyped-def]
    """Insert the distances of the points in [start, end) other than `place` into the ascending k best."""
    for j in range(end - start):
        apart[j] = abs(query[0] - columns[0, start + j])
    for d in range(1, len(columns)):
        for j in range(end - start):
            apart[j] = max(apart[j], abs(query[d] - columns[d, start + j]))
    _insert(apart, end - start, place - start, best)


@numba.njit(cache=True, nogil=True)
def _insert(apart, count, itself, best):  # type: ignore[no-untyped-def]
    last = len(best) - 1
    limit = best[last]
    for j in range(count):
        distance = apart[j]
        if distance < limit and j != itself:
            slot = last
            while slot > 0 and best[slot - 1] > distance:
                best[slot] = best[slot - 1]
                slot -= 1
            best[slot] = distance
            limit = best[last]


@numba.njit(cache=True, nogil=True)
def _nearest_in_plane(columns, spans, boxes, queries, out):  # type: ignore[no-untyped-def]
    """`_nearest` with two coordinates written out: half its time."""
    x, y, k, inner = columns[0], columns[1], out.shape[1], len(spans) // 2
    stack, apart, best = np.empty(64, np.int64), np.empty(2 * _LEAF), np.empty(k)
    for row in range(len(queries)):
        place = queries[row]
        a, b, node = x[place], y[place], 0
        while node < inner:
            node = 2 * node + 1 + (place >= spans[2 * node + 2, 0])
        best[:] = np.inf
        stack[0], depth, passed = node, 1, node
        while True:
            while depth:
                depth -= 1
                other = stack[depth]
                box = boxes[other]
                if max(max(box[0] - a, a - box[1]), max(box[2] - b, b - box[3])) >= best[k - 1]:
                    continue
                if other < inner:
                    stack[depth], stack[depth + 1] = 2 * other + 1, 2 * other + 2
                    depth += 2
                    continue
                start, end = spans[other, 0], spans[other, 1]
                for j in range(end - start):
                    apart[j] = max(abs(a - x[start + j]), abs(b - y[start + j]))
                _insert(apart, end - start, place - start, best)
            if passed == 0:
                break
            stack[0], depth = passed + 1 if passed % 2 else passed - 1, 1
            passed = (passed - 1) // 2
        out[row] = best


@numba.njit(cache=True, nogil=True)
def _to_box(query, box, width):  # type: ignore[no-untyped-def]
    distance = max(box[0] - query[0], query[0] - box[1])
    for d in range(1, width):
        distance = max(distance, max(box[2 * d] - query[d], query[d] - box[2 * d + 1]))
    return distance


@numba.njit(cache=True, nogil=True)
def _count(columns, spans, boxes, centres, radii, out):  # type: ignore[no-untyped-def]
    """A node wholly inside the radius is counted whole, one wholly outside left out."""
    width, inner = len(columns), len(spans) // 2
    stack = np.empty(64, np.int64)
    for row in range(len(centres)):
        query, radius = centres[row], radii[row]
        stack[0], depth, total = 0, 1, 0
        while depth:
            depth -= 1
            node = stack[depth]
            nearest, farthest = 0.0, 0.0
            for d in range(width):
                low, high = boxes[node, 2 * d] - query[d], query[d] - boxes[node, 2 * d + 1]
                nearest = max(nearest, max(low, high))
                farthest = max(farthest, max(-low, -high))
            if nearest >= radius:
                continue
            if farthest < radius:
                total += spans[node, 1] - spans[node, 0]
            elif node < inner:
                stack[depth], stack[depth + 1] = 2 * node + 1, 2 * node + 2
                depth += 2
            else:
                for other in range(spans[node, 0], spans[node, 1]):
                    inside = True
                    for d in range(width):
                        inside &= abs(query[d] - columns[d, other]) < radius
                    total += inside
        out[row] = total
