"""The graph of an index: over which coordinates, built from the codes, and how broad its search must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.vector_index.codes import TILE
from bntools.core.methods.vector_index.exact import exact_scores, recalls
from bntools.core.methods.vector_index.index import Floats, Graph, VectorIndex
from bntools.core.methods.vector_index.searching import BREADTH, search
from bntools.core.progress import Progress
from bntools.kernels.vectors import graph
from bntools.tools.vec_index import gauge
from bntools.tools.vec_index.settings import RERANK, Settings
from bntools.tools.vec_index.training import Scene

BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LOSS = 0.01
"""Recall that the graph may lose against a scan of all codes, where no recall is asked for."""
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


def with_graph(index: VectorIndex, scale: Floats, settings: Settings, progress: Progress) -> VectorIndex:
    """An index of one part with a graph over its codes."""
    places = points(index, scale)
    with progress("linking", len(places)) as advance:
        neighbours = graph.build(
            places, settings.degree, settings.ef_build, seed=settings.seed, advance=advance
        )
    return replace(index, graph=Graph(neighbours, _entries(index, places), scale))


def linked_again(index: VectorIndex, like: Graph, seed: int, progress: Progress) -> VectorIndex:
    """An index of one part with a graph of the scale and degree of another."""
    return with_graph(index, like.scale, Settings(degree=like.neighbours.shape[1], seed=seed), progress)


def _entries(index: VectorIndex, places: Floats) -> NDArray[np.int32]:
    """Of each cell the position in its middle, -1 for an empty one."""
    middles = [
        first + graph.middle(places[first:last]) if first < last else -1
        for first, last in zip(index.starts[:-1], index.starts[1:], strict=True)
    ]
    return np.array(middles, np.int32)


def measured(
    index: VectorIndex, scene: Scene, settings: Settings, recall: Floats | None
) -> tuple[VectorIndex, Floats | None]:
    """The index with the least breadth whose recall on held-out queries is enough, and that recall by query.

    recall: that of a scan. Enough is what was asked for, or what the scan has less LOSS; BREADTH without queries.
    """
    if recall is None or scene.held is None or scene.truth is None:
        return replace(index, facts={**index.facts, "ef": BREADTH}), recall
    rerank = 0 if settings.second == "none" else min(settings.rerank or RERANK, len(index))
    enough: Callable[[Floats], bool] = lambda r: bool(  # noqa: E731
        r.mean() >= recall.mean() - LOSS
        if settings.recall is None
        else r.mean() - r.std() / len(r) ** 0.5 >= settings.recall
    )
    reached = recall
    for breadth in BREADTHS:
        hits = search(
            index, scene.held, scene.truth.rows.shape[1], rerank=rerank, ef=breadth, threads=settings.threads
        )
        scores = exact_scores(scene.base, scene.held, hits.rows, settings.metric)
        reached = recalls(hits.rows, scene.truth, scores)
        if enough(reached):
            break
    return replace(index, facts={**index.facts, "ef": breadth}), reached
