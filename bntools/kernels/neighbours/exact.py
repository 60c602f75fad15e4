"""Exact nearest neighbours by brute force: a float32 matrix product selects, float64 differences decide."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

ROWS, TILE = 256, 4096
"""Queries and points of one product: 4 MiB of float32, read back while it is still in the cache."""
SPARE = 24
"""Candidates kept beyond k. What they cover of rounding is checked query by query; the rest is done in float64."""
_STEP = 16
_UNIT = 2.0**-24


class Neighbours(NamedTuple):
    """Distances [M, k], ascending, and indices [M, k] of the nearest points of M queries, the query left out."""

    distances: Floats
    indices: Indices


def nearest(
    points: Floats,
    queries: Indices,
    k: int,
    threads: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Neighbours:
    """The k nearest points of some of the points [N, D], exact in float64; ties go to the lower index.

    queries: indices [M] into points. A product of float32 finds k + 24 candidates a query, whose distances are
    summed again from float64 differences. Rounding is bounded (Higham 2002, section 3.1): a query whose k-th
    distance is not proven smaller than every one left out is searched again in float64 throughout, as happens with
    duplicates and with clusters tiny beside their separation. `advance` is told the queries done. 2 M N D operations,
    4 N D bytes beside the points. Raises ValueError for k outside 1 to N - 1.
    """
    count = len(points)
    if not 1 <= k < count:
        raise ValueError(f"k must be 1 to {count - 1} for {count} points, got {k}")
    workers = threads or torch.get_num_threads()
    points = np.ascontiguousarray(points, np.float64)
    single, halves, scale = _prepare(points)
    keep = min(k + SPARE, count - 1)
    neighbours = Neighbours(np.empty((len(queries), k)), np.empty((len(queries), k), np.int64))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(queries), ROWS):
            rows = np.asarray(queries[start : start + ROWS], np.int64)
            values, candidates = _candidates(pool, workers, single, halves, rows, keep)
            parts = (slice(start, start + len(rows)), values, candidates)
            _decide(pool, workers, points, scale, halves, rows, parts, neighbours)
            advance(len(rows))
    return neighbours


def nearest_reference(points: Floats, queries: Indices, k: int) -> Neighbours:
    """The specification of `nearest`."""
    distances, indices = [], []
    for query in queries:
        apart = np.sqrt(((points - points[query]) ** 2).sum(1))
        apart[query] = np.inf
        order = np.argsort(apart, kind="stable")[:k]
        distances.append(apart[order])
        indices.append(order)
    return Neighbours(np.array(distances), np.array(indices))


def count_within(
    points: Floats, queries: Indices, radii: Floats, threads: int | None = None
) -> NDArray[np.int64]:
    """How many points [N, D] lie strictly within each radius [R] of each query, itself left out: [M, R].

    The float32 product settles the pairs that its rounding cannot have moved over a radius; the others are summed
    from float64 differences.
    """
    workers = threads or torch.get_num_threads()
    points = np.ascontiguousarray(points, np.float64)
    single, halves, scale = _prepare(points)
    queries, radii = np.asarray(queries, np.int64), np.asarray(radii, np.float64)
    counts = np.zeros((len(queries), len(radii)), np.int64)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(queries), ROWS):
            rows, total = queries[start : start + ROWS], counts[start : start + ROWS]
            length = np.sqrt(2.0 * halves[rows])
            limits = 0.5 * (np.square(radii / scale) - np.square(length)[:, None])
            slack = 0.5 * _error(length, points.shape[1]) + _UNIT * np.abs(limits).max(1)
            for first, dots in _products(single, rows):
                part = halves[first : first + TILE]
                jobs = [
                    (dots[p], part, first, rows[p], limits[p], slack[p], points, radii, total[p])
                    for p in _parts(len(rows), workers)
                ]
                list(pool.map(lambda job: _tally(*job), jobs))
    return counts


def _prepare(points: Floats) -> tuple[torch.Tensor, NDArray[np.float32], float]:
    """Points centred and scaled to a largest norm of 1 as float32 [N, D], half their squared norms, and the scale."""
    centred = points - points.mean(0)
    scale = float(np.sqrt(np.einsum("nd,nd->n", centred, centred).max())) or 1.0
    single = (centred / scale).astype(np.float32)
    halves = 0.5 * np.einsum("nd,nd->n", single, single, dtype=np.float64)
    return torch.from_numpy(single), halves.astype(np.float32), scale


def _products(single: torch.Tensor, rows: Indices) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """q x of the chosen rows with each tile of points [rows, tile], and where the tile starts; one buffer."""
    chosen = single[torch.from_numpy(rows)]
    product = torch.empty(len(rows), TILE)
    for start in range(0, len(single), TILE):
        tile = single[start : start + TILE]
        out = product if len(tile) == TILE else torch.empty(len(rows), len(tile))
        yield start, torch.mm(chosen, tile.T, out=out).numpy()


def _error(length: Floats, width: int) -> Floats:
    """Bound on the error of a squared distance to a query of norm `length`, all norms at most 1.

    |fl(h - q x) - (h - q x)| <= u ((D + 4) |q| |x| + 2 |x|^2) with inputs rounded once, doubled for the square.
    """
    return 2 * _UNIT * ((width + 6) * length + 3)


def _candidates(
    pool: ThreadPoolExecutor,
    workers: int,
    single: torch.Tensor,
    halves: NDArray[np.float32],
    rows: Indices,
    keep: int,
) -> tuple[NDArray[np.float32], Indices]:
    """The `keep` smallest of |x|^2 / 2 - q x over the points, ascending [rows, keep], and their indices."""
    values = np.full((len(rows), keep), np.inf, np.float32)
    indices = np.full((len(rows), keep), -1, np.int64)
    parts = _parts(len(rows), workers)
    for start, dots in _products(single, rows):
        part = halves[start : start + TILE]
        jobs = [(dots[p], part, start, rows[p], values[p], indices[p]) for p in parts]
        list(pool.map(lambda job: _select(*job), jobs))
    return values, indices


def _decide(
    pool: ThreadPoolExecutor,
    workers: int,
    points: Floats,
    scale: float,
    halves: NDArray[np.float32],
    rows: Indices,
    candidates: tuple[slice, NDArray[np.float32], Indices],
    found: Neighbours,
) -> None:
    """Fill `found` for a block of queries from its candidates, or from all points where those do not suffice."""
    where, values, indices = candidates
    squares, chosen = found.distances[where], found.indices[where]
    everything = indices.shape[1] == len(points) - 1
    length = np.sqrt(2.0 * halves[rows])
    error = _error(length, points.shape[1])
    floor = 2.0 * values[:, -1].astype(np.float64) + np.square(length) - error
    bound = np.full(len(rows), np.inf) if everything else floor * (scale * scale) * (1 - 1e-12)
    jobs = [
        (points, rows[p], indices[p], bound[p], squares[p], chosen[p]) for p in _parts(len(rows), workers)
    ]
    list(pool.map(lambda job: _exact(*job), jobs))


def _parts(count: int, workers: int) -> list[slice]:
    edges = np.linspace(0, count, min(workers, count) + 1).astype(int)
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _select(dots, halves, start, rows, values, indices):  # type: ignore[no-untyped-def]
    """Merge one tile [rows, tile] of products into the sorted candidates of each row."""
    keep, tile = values.shape[1], dots.shape[1]
    for i in range(dots.shape[0]):
        line, best, names = dots[i], values[i], indices[i]
        limit = best[keep - 1]
        for low in range(0, tile, _STEP):
            high = min(low + _STEP, tile)
            least = np.float32(3e38)
            for j in range(low, high):
                least = min(least, halves[j] - line[j])
            if least >= limit:
                continue
            for j in range(low, high):
                value = halves[j] - line[j]
                if value < limit and start + j != rows[i]:
                    place = keep - 1
                    while place > 0 and best[place - 1] > value:
                        best[place], names[place] = best[place - 1], names[place - 1]
                        place -= 1
                    best[place], names[place] = value, start + j
                    limit = best[keep - 1]


@numba.njit(cache=True, nogil=True)
def _insert(square, name, squares, names):  # type: ignore[no-untyped-def]
    """Put a distance into ascending order, of equal ones the lower index first."""
    place = len(squares) - 1
    if square > squares[place] or (square == squares[place] and name > names[place]):
        return
    while place > 0 and (
        squares[place - 1] > square or (squares[place - 1] == square and names[place - 1] > name)
    ):
        squares[place], names[place] = squares[place - 1], names[place - 1]
        place -= 1
    squares[place], names[place] = square, name


@numba.njit(cache=True, nogil=True)
def _apart(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for d in range(len(x)):
        total += (x[d] - y[d]) ** 2
    return total


@numba.njit(cache=True, nogil=True)
def _exact(points, rows, candidates, bound, distances, names):  # type: ignore[no-untyped-def]
    """Distances of the candidates in float64; all points instead where the k-th is not below `bound`."""
    for i in range(len(rows)):
        query = points[rows[i]]
        distances[i], names[i] = np.inf, len(points)
        for name in candidates[i]:
            if name >= 0:
                _insert(_apart(query, points[name]), name, distances[i], names[i])
        if not distances[i, -1] < bound[i]:
            distances[i], names[i] = np.inf, len(points)
            for name in range(len(points)):
                if name != rows[i]:
                    _insert(_apart(query, points[name]), name, distances[i], names[i])
        distances[i] = np.sqrt(distances[i])


@numba.njit(cache=True, nogil=True)
def _tally(dots, halves, start, rows, limits, slack, points, radii, totals):  # type: ignore[no-untyped-def]
    """Add one tile's points within each radius to the totals [rows, radii]."""
    for i in range(dots.shape[0]):
        beyond = limits[i].max() + slack[i]
        for j in range(dots.shape[1]):
            value = halves[j] - dots[i, j]
            if value > beyond or start + j == rows[i]:
                continue
            exact = -1.0
            for r in range(len(radii)):
                if value < limits[i, r] - slack[i]:
                    totals[i, r] += 1
                elif value <= limits[i, r] + slack[i]:
                    if exact < 0:
                        exact = _apart(points[rows[i]], points[start + j])
                    totals[i, r] += np.sqrt(exact) < radii[r]
