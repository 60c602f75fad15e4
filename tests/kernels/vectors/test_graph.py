"""The proximity graph: pruning by its definition, lists that keep their bounds, walks that meet what a scan finds."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.kernels.vectors import graph, graph_loops, product


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).normal(size=(900, 12)).astype(np.float32)


def test_pruning_keeps_a_candidate_unless_one_kept_before_is_nearer_to_it_than_the_point_is(points):
    random = np.random.default_rng(1)
    for spread in (1.0, 1.3):
        items = random.choice(np.arange(1, 900), 80, replace=False).astype(np.int32)
        apart = ((points[items] - points[0]) ** 2).sum(1)
        order = np.argsort(apart)
        items, apart = items[order], apart[order]
        kept: list[int] = []
        for item, distance in zip(items, apart, strict=True):
            if len(kept) < 16 and all(
                spread**2 * ((points[item] - points[k]) ** 2).sum() >= distance for k in kept
            ):
                kept.append(int(item))
        chosen = np.full(16, -1, np.int32)
        count = graph_loops.prune(points, apart.astype(np.float32), items, 80, np.float32(spread**2), chosen)
        assert chosen[:count].tolist() == kept


def test_a_list_keeps_the_least_in_order():
    random = np.random.default_rng(0)
    keys, items = np.empty(10, np.float32), np.empty(10, np.int32)
    fresh, size = np.empty(10, np.uint8), 0
    values = random.permutation(50).astype(np.float32)
    for i, value in enumerate(values):
        size = min(size + (graph_loops.offer(value, i, keys, items, fresh, size) >= 0), 10)
    assert keys.tolist() == list(range(10))
    assert (values[items] == keys).all()


def test_a_graph_keeps_its_degree_links_no_point_to_itself_and_is_the_same_again(points):
    neighbours = graph.build(points, 16, 40, seed=3)
    assert neighbours.shape == (900, 16)
    assert not (neighbours == np.arange(900)[:, None]).any()
    for row in neighbours:
        own = row[row >= 0]
        assert len(set(own.tolist())) == len(own) > 0
        assert (row[len(own) :] == -1).all()
    assert (graph.build(points, 16, 40, seed=3) == neighbours).all()


def test_a_walk_that_keeps_everything_orders_it_as_the_products_of_the_decoded_vectors_do(points):
    book = product.vector_codebook(points, 4, 0)
    codes = product.encode(points, book)
    random = np.random.default_rng(2)
    factor, bias = (
        random.uniform(0.9, 1.1, 900).astype(np.float32),
        random.normal(size=900).astype(np.float32),
    )
    cell, centre = random.integers(0, 3, 900).astype(np.uint8), random.normal(size=(5, 3)).astype(np.float32)
    queries = random.normal(size=(5, 12)).astype(np.float32)
    scores = queries @ product.decode(codes, book, 12).T * factor + bias + centre[:, cell]
    neighbours = graph.link(random.integers(0, 900, (30, 6)).astype(np.int32), graph.build(points, 16, 60))
    walks = graph.search(
        queries, centre, book, coded=graph.CodedRows(codes, factor, bias, cell), neighbours=neighbours,
        entries=np.tile(np.array([3, -1, 400], np.int32), (5, 1)), breadth=900,
    )  # fmt: skip
    met = walks.scores > -1e29
    assert met.mean() > 0.99
    taken = np.take_along_axis(scores, walks.positions.astype(np.int64), 1)
    assert np.allclose(walks.scores[met], taken[met], atol=2e-3)
    assert all(len(set(p[m].tolist())) == m.sum() for p, m in zip(walks.positions, met, strict=True))
    assert (np.diff(walks.scores, axis=1) <= 0).all()


def test_nearest_points_are_met_by_narrow_walks(points):
    neighbours = graph.build(points, 24, 60)
    keys, items, fresh = np.empty(30, np.float32), np.empty(30, np.int32), np.empty(30, np.uint8)
    stamps, count = np.zeros(900, np.uint32), (neighbours >= 0).sum(1).astype(np.int32)
    random, right = np.random.default_rng(5), []
    for stamp in range(1, 101):
        query = random.normal(size=12).astype(np.float32)
        graph_loops.nearest(
            points, query, neighbours, count, graph.middle(points), stamps, stamp, keys, items, fresh
        )
        truth = ((points - query) ** 2).sum(1).argsort()[:10]
        right.append(np.isin(truth, items).mean())
    assert np.mean(right) > 0.95


def test_answers_to_one_query_are_linked_in_the_room_behind_the_near_ones():
    near = np.array([[1, -1, -1, -1], [0, 2, 3, 4], [1, -1, -1, -1], [-1] * 4, [-1] * 4], np.int32)
    lists = np.array([[3, 1, 4], [0, 1, 2]], np.int32)
    linked = graph.link(lists, near)
    assert graph.near_columns(linked.shape[1]) == 4
    assert (linked[:, :4] == near).all()
    assert linked[:, 4:].tolist() == [[2, -1], [-1, -1], [-1, -1], [1, 4], [1, -1]]
    assert all(graph.near_columns(d + d // 2) == d for d in range(2, 513))


def test_products_with_bytes_are_those_of_numpy():
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (50, 33)).astype(np.uint8)
    rows, queries = random.integers(0, 50, (4, 7)), random.normal(size=(4, 33)).astype(np.float32)
    result = np.empty((4, 7), np.float32)
    graph.byte_products(codes, rows, queries, result)
    assert np.allclose(
        result, np.einsum("md,mrd->mr", queries, codes[rows].astype(np.float32)), rtol=1e-4, atol=1e-2
    )
