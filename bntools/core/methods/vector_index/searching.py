"""The search of a vector index: by tables of products over its codes, then by the finer copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bntools.core.errors import bad_input
from bntools.core.methods.vector_index.codes import TILE, AdaptiveCode, ProductCode
from bntools.core.methods.vector_index.index import DEAD, Floats, Hits, Indices, VectorIndex, prepare, select
from bntools.kernels.vectors import graph, loops
from bntools.kernels.vectors.product import spread

_QUERIES = 64
_ENTRIES = 8
"""Cells, those with the best centroids, from whose middle rows a walk begins."""
BREADTH = 100
"""Of a graph's search, where the build could not measure one: hnswlib's at recall .95 of 40,000 text embeddings."""


class Effort(NamedTuple):
    """How far to search: the first `depth` by the code; the share `probe` of the vectors, or along the graph (None)
    with `breadth` candidates."""

    depth: int
    probe: float | None
    breadth: int


def search(
    index: VectorIndex,
    queries: Floats,
    k: int,
    *,
    rerank: int = 0,
    probe: float | None = None,
    ef: int | None = None,
    threads: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> Hits:
    """The k best rows for each query [m, D] by the codes, approximate scores with them.

    rerank: take so many by the first code and order them by the second. probe: share of the vectors whose cells are
    visited, the cells with the best centroids first; None: all, or along the graph where there is one, keeping
    `ef` candidates. Scores are products, for cos cosines, for l2 less the squared distance.
    """
    queries = prepare(queries, index.metric)
    depth = min(max(rerank, k) if index.second is not None else k, len(index))
    effort = Effort(depth, probe, max(ef or index.facts.get("ef") or BREADTH, depth))
    result = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    for part in index.parts:  # cached before threads ask for them
        _ = part.order, part.starts, part.sizes, part.bias

    def answer(number: int) -> None:
        rows = slice(number * _QUERIES, (number + 1) * _QUERIES)
        block = queries[rows]
        hits = _first(index, block @ index.query_map, effort)
        if rerank and index.second is not None:
            hits = _rerank(index, block, hits)
        scores = hits.scores[:, :k]
        if index.metric == "l2":
            scores = 2 * scores - np.einsum("md,md->m", block, block)[:, None]
        result.rows[rows], result.scores[rows] = hits.rows[:, :k], scores
        advance(len(block))

    spread(answer, -(-len(queries) // _QUERIES), threads)
    return result


def _first(index: VectorIndex, mapped: Floats, effort: Effort) -> Hits:
    """The best by the first code over all parts."""
    hits = []
    for first, part in zip(index.first_rows[:-1], index.parts, strict=True):
        if not part.living:
            continue
        own = effort._replace(depth=min(effort.depth, part.living))
        if part.graph is not None and effort.probe is None:
            found = _by_graph(part, mapped, own)
        elif isinstance(part.code, ProductCode):
            found = _by_tables(part, mapped, own)
        else:
            found = _by_decoding(part, mapped, own.depth)
        hits.append(Hits(found.rows + first, found.scores))
    if len(hits) == 1:
        return hits[0]
    return best(np.concatenate([h.rows for h in hits], 1), np.concatenate([h.scores for h in hits], 1),
                effort.depth)  # fmt: skip


def _centres(part: VectorIndex, mapped: Floats) -> Floats:
    """Products of queries with mean and centroid of each cell [m, C]."""
    offsets = (mapped @ part.mean)[:, None]
    return offsets if part.cells is None else offsets + mapped @ part.cells.centroids.T


def _by_tables(part: VectorIndex, mapped: Floats, effort: Effort) -> Hits:
    """Scan product codes: of each query a table of products with every word, of each vector a sum of look-ups."""
    code, k = part.code, effort.depth
    assert isinstance(code, ProductCode)
    groups, words = code.book
    table = np.empty((code.blocks.shape[1], loops.WORDS), np.float32)
    centre = _centres(part, mapped)
    hits = Hits(np.zeros((len(mapped), k), np.int64), np.full((len(mapped), k), -np.inf, np.float32))
    for i, query in enumerate(mapped):
        loops.tables(query, groups.order, groups.start, words, table)
        cells = visited(centre[i], part.sizes, 1.0 if effort.probe is None else effort.probe, k)
        loops.scan_cells(
            code.blocks, table, cells, part.starts, code.factors, part.bias, centre[i], part.order,
            hits.scores[i], hits.rows[i],
        )  # fmt: skip
    return Hits(hits.rows[:, ::-1], hits.scores[:, ::-1])


def visited(centre: Floats, sizes: Indices, probe: float, k: int) -> Indices:
    """The cells to visit, best first: as many as hold the share `probe` of the vectors, and k of them at least."""
    order = np.argsort(-centre, kind="stable")
    if probe >= 1:
        return order
    reached = np.cumsum(sizes[order])
    wanted = max(probe * reached[-1], k)
    return order[: int(np.searchsorted(reached, wanted)) + 1]


def _by_graph(part: VectorIndex, mapped: Floats, effort: Effort) -> Hits:
    """Walk the graph by the codes; a query that meets too few rows on it is answered by the scan."""
    code, depth = part.code, effort.depth
    assert isinstance(code, ProductCode)
    assert part.graph is not None
    centre = _centres(part, mapped)
    count = min(_ENTRIES, centre.shape[1])
    cells = np.argpartition(-centre, count - 1, axis=1)[:, :count]
    hits = graph.search(
        mapped, centre, code.book,
        coded=graph.CodedRows(code.by_vector, code.factors, part.norm_bias, part.cell_of),
        neighbours=part.graph.neighbours, entries=part.graph.entry[cells],
        breadth=min(max(effort.breadth, depth), len(code)),
    )  # fmt: skip
    rows, scores = part.order[hits.positions], hits.scores
    if part.dead is None:  # walks are in order but for equal scores
        rows, scores = rows[:, :depth], scores[:, :depth]
    else:
        scores = np.where(part.alive[rows], scores, DEAD)
    result = best(rows, scores, depth)
    short = np.flatnonzero(result.scores[:, -1] <= DEAD)
    if len(short):
        scanned = _by_tables(part, mapped[short], effort)
        result.rows[short], result.scores[short] = scanned.rows, scanned.scores
    return result


def _by_decoding(part: VectorIndex, mapped: Floats, k: int) -> Hits:
    """Decode tiles of vectors and multiply."""
    rows, scores = np.zeros((len(mapped), 0), np.int64), np.zeros((len(mapped), 0), np.float32)
    offset = (mapped @ part.mean)[:, None]
    for start in range(0, len(part.code), TILE):
        stop = min(start + TILE, len(part.code))
        products = mapped @ part.code.decode(start, stop).T + offset + part.bias[start:stop]
        if not np.isfinite(products).all():
            raise bad_input(f"damaged index: a vector of rows {start:,} to {stop:,} is not finite")
        scores = np.concatenate([scores, products], 1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, stop), products.shape)], 1)
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
    scores = np.empty_like(hits.scores)
    for first, part in zip(index.first_rows[:-1], index.parts, strict=True):
        own = (hits.rows >= first) & (hits.rows < first + len(part.code))
        if own.any():
            rows = np.where(own, hits.rows - first, 0)
            np.copyto(scores, _finer(part, queries, rows), where=own)
    if not np.isfinite(scores).all():
        raise bad_input("damaged index: a vector of the second code is not finite")
    return best(hits.rows, scores, hits.rows.shape[1])


def _finer(part: VectorIndex, queries: Floats, rows: Indices) -> Floats:
    """Scores of chosen rows [m, r] of one part by its second code."""
    assert part.second is not None
    code = part.second.code
    scores = np.empty(rows.shape, np.float32)
    if isinstance(code, AdaptiveCode) and code.bits == 8:
        low, step = (a[rows].astype(np.float32) for a in (code.code.low, code.code.step))
        graph.byte_products(code.code.codes, rows, queries, scores)
        scores = scores * step + low * queries.sum(1, keepdims=True)
    else:
        for i, (query, own) in enumerate(zip(queries, rows, strict=True)):
            scores[i] = select(code, own).decode(0, len(own)) @ query
    scores += (queries @ part.second.mean)[:, None]
    if part.norm2 is not None:
        scores -= 0.5 * part.norm2[rows]
    return np.asarray(scores, np.float32)
