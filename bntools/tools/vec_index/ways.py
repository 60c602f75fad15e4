"""The graph of an index: over which coordinates, built from the codes, and how broad its search must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.vector_index.codes import TILE
from bntools.core.methods.vector_index.exact import exact, exact_scores, recalls
from bntools.core.methods.vector_index.index import Floats, Graph, VectorIndex
from bntools.core.methods.vector_index.searching import BREADTH, search
from bntools.core.progress import Progress
from bntools.kernels.vectors import graph
from bntools.tools.vec_index import gauge
from bntools.tools.vec_index.report import standard_error
from bntools.tools.vec_index.settings import RERANK, Settings
from bntools.tools.vec_index.training import Scene

Shares = NDArray[np.float64]
BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LOSS = 0.01
"""Recall that the graph may lose against a scan of all codes, where no recall is asked for."""
_ASKED, _ANSWERS = 4000, 32  # queries that ask for links, and the answers of each that are linked
_SHARE = 0.95  # of the variance of the scores, in the coordinates that distances are taken over


def balance(index: VectorIndex, scene: Scene) -> Floats:
    """Scale [d] that gives vectors the spread queries have in each coordinate; 0 for those that matter least.

    Scores stay the same when a coordinate of the vectors is multiplied by s and one of the queries divided by it;
    distances between vectors do not. In coordinates where queries are white vectors that differ in nothing a query
    asks are far apart, and a graph of such distances leads nowhere. s = (q / x)^(1/4) with the variances q and x makes
    both spreads the same.
    """
    vectors = np.einsum("Dd,Dd->d", index.base_map, scene.moments @ index.base_map) - index.mean**2
    vectors = np.maximum(vectors, 1e-30)
    asked = vectors
    if scene.learn is not None:
        asked = np.einsum("Dd,Dd->d", index.query_map, gauge.second_moments(scene.learn) @ index.query_map)
    worth = asked * vectors
    order = np.argsort(-worth, kind="stable")
    count = int(np.searchsorted(np.cumsum(worth[order]), _SHARE * worth.sum())) + 1
    scale = np.zeros(len(worth), np.float32)
    scale[order[:count]] = (asked / vectors)[order[:count]] ** 0.25
    return scale


def points(index: VectorIndex, scale: Floats) -> Floats:
    """Scaled coordinates [n, e] of the vectors by position, as the codes have them."""
    keep = np.flatnonzero(scale)
    result = np.empty((len(index.code), len(keep)), np.float32)
    for start in range(0, len(result), TILE):
        stop = min(start + TILE, len(result))
        rows = index.code.decode(start, stop)[:, keep]
        if index.cells is not None:
            rows = rows + index.cells.centroids[index.cell_of[start:stop]][:, keep]
        result[start:stop] = rows * scale[keep]
    return result


def with_graph(index: VectorIndex, scene: Scene, settings: Settings, progress: Progress) -> VectorIndex:
    """An index of one part with a graph over its codes, and over the answers to the queries learnt from."""
    scale = balance(index, scene)
    near, entry = _near(index, scale, settings, progress)
    lists = np.zeros((0, 2), np.int32)
    if scene.learn is not None:
        best = exact(scene.base, scene.learn[:_ASKED], min(_ANSWERS, scene.base.rows), settings.metric)
        lists = _places(index)[best.rows]
    return replace(index, graph=Graph(graph.link(lists, near), entry, scale))


def linked_again(index: VectorIndex, before: VectorIndex, seed: int, progress: Progress) -> VectorIndex:
    """An index of one part with a graph of its own, and the links that queries had asked for among the first rows,
    which are those of `before` that are there still."""
    old = before.graph
    assert old is not None
    degree = graph.near_columns(old.neighbours.shape[1])
    near, entry = _near(index, old.scale, Settings(degree=degree, seed=seed), progress)
    source, column = np.nonzero(old.neighbours[:, degree:] >= 0)
    target = old.neighbours[source, degree + column]
    rows = before.order[np.stack([source, target])]
    rows = rows[:, before.alive[rows].all(0)]
    rows = _places(index)[np.cumsum(before.alive)[rows] - 1]
    return replace(index, graph=Graph(graph.link_pairs(rows[0], rows[1], near), entry, old.scale))


def _near(
    index: VectorIndex, scale: Floats, settings: Settings, progress: Progress
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Neighbours by distance, and where to enter."""
    spots = points(index, scale)
    with progress("linking", len(spots)) as advance:
        near = graph.build(spots, settings.degree, settings.ef_build, seed=settings.seed, advance=advance)
    return near, _entries(index, spots)


def _places(index: VectorIndex) -> NDArray[np.int32]:
    """The position of each row."""
    result = np.empty(len(index.code), np.int32)
    result[index.order] = np.arange(len(index.code))
    return result


def _entries(index: VectorIndex, spots: Floats) -> NDArray[np.int32]:
    """Of each cell the position in its middle, -1 for an empty one."""
    middles = [
        first + graph.middle(spots[first:last]) if first < last else -1
        for first, last in zip(index.starts[:-1], index.starts[1:], strict=True)
    ]
    return np.array(middles, np.int32)


def measured(
    index: VectorIndex, scene: Scene, settings: Settings, recall: Shares | None
) -> tuple[VectorIndex, Shares | None]:
    """The index with the least breadth whose recall on held-out queries is enough, and that recall by query.

    recall: that of a scan. Enough is what was asked for, or what the scan has less LOSS; BREADTH without queries.
    """
    if recall is None or scene.held is None or scene.truth is None:
        return replace(index, facts={**index.facts, "ef": BREADTH}), recall
    rerank = 0 if settings.second == "none" else min(settings.rerank or RERANK, len(index))
    k, reached, chosen = scene.truth.rows.shape[1], recall, BREADTHS[-1]
    for breadth in BREADTHS:
        hits = search(index, scene.held, k, rerank=rerank, ef=breadth, threads=settings.threads)
        scores = exact_scores(scene.base, scene.held, hits.rows, settings.metric)
        reached = recalls(hits.rows, scene.truth, scores)
        if _enough(reached, recall, settings.recall):
            chosen = breadth
            break
    return replace(index, facts={**index.facts, "ef": chosen}), reached


def _enough(reached: Shares, scanned: Shares, wanted: float | None) -> bool:
    if wanted is None:
        return bool(reached.mean() >= scanned.mean() - LOSS)
    return bool(reached.mean() - standard_error(reached) >= wanted)
