"""Counting by sorting, by a tree and by products is counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.information.box_tree import build, counts_within, kth_distances
from bntools.kernels.information.neighbour_counts import (
    Side,
    nearer,
    neighbour_counts,
    neighbour_counts_reference,
)


def _sides(rows: int, x: int, y: int, *, seed: int = 0, digits: int | None = None):
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((rows, x))
    second = 0.5 * first[:, :1] + rng.standard_normal((rows, y))
    return (first, second) if digits is None else (first.round(digits), second.round(digits))


@pytest.mark.parametrize(("x", "y"), [(1, 1), (1, 2), (3, 1), (3, 3), (4, 4), (5, 5), (1, 9)])
def test_counts_equal_the_reference_for_every_way_to_count(x, y):
    first, second = _sides(257, x, y)
    found = neighbour_counts(Side.of(first), Side.of(second), 3)
    expected = neighbour_counts_reference(first, second, 3)
    order = np.argsort(found.rows)
    np.testing.assert_allclose(found.radii[order], expected.radii, rtol=1e-12)
    np.testing.assert_array_equal(found.x[order], expected.x)
    np.testing.assert_array_equal(found.y[order], expected.y)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(30, 120), st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_numbers_that_repeat_are_counted_as_the_reference_counts_them(x, y, rows, k, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, (rows, x)).astype(float), rng.integers(0, 6, (rows, y)).astype(float)
    found = neighbour_counts(Side.of(first), Side.of(second), k)
    expected = neighbour_counts_reference(first, second, k)
    order = np.argsort(found.rows)
    np.testing.assert_array_equal(found.radii[order], expected.radii)
    np.testing.assert_array_equal(found.x[order], expected.x)
    np.testing.assert_array_equal(found.y[order], expected.y)


@pytest.mark.parametrize("width", [1, 5])
def test_some_queries_give_the_terms_of_those_rows(width):
    first, second = _sides(200, width, width)
    rows = np.array([3, 77, 150])
    some = neighbour_counts(Side.of(first), Side.of(second), 3, rows)
    every = neighbour_counts(Side.of(first), Side.of(second), 3)
    place = {row: index for index, row in enumerate(every.rows.tolist())}
    for index, row in enumerate(some.rows.tolist()):
        assert some.x[index] == every.x[place[row]]
        assert some.y[index] == every.y[place[row]]


@pytest.mark.parametrize("width", [2, 3, 6])
@pytest.mark.parametrize("closed", [False, True])
def test_a_tree_counts_within_a_distance(width, closed):
    rng = np.random.default_rng(1)
    points = rng.integers(0, 9, (300, width)).astype(float)
    radii = rng.integers(0, 5, 300).astype(float)
    apart = np.abs(points[:, None] - points).max(2)
    expected = (apart <= radii[:, None]).sum(1) if closed else (apart < radii[:, None]).sum(1)
    np.testing.assert_array_equal(counts_within(build(points), points, radii, closed), expected)


@pytest.mark.parametrize("rows", [12, 13, 25, 400])
@pytest.mark.parametrize("width", [2, 4])
def test_a_tree_of_any_size_has_the_nearest(rows, width):
    points = np.random.default_rng(2).standard_normal((rows, width))
    tree = build(points)
    apart = np.abs(tree.columns.T[:, None] - tree.columns.T).max(2)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_array_equal(kth_distances(tree, np.arange(rows), 4), np.sort(apart, 1)[:, :4])


def test_a_part_is_made_once_for_many_partners():
    first, second = _sides(300, 2, 1)
    part = Side.of(first)
    for partner in (second, second + 1, -second):
        assert nearer(part, np.arange(300), np.full(300, 0.5)).shape == (300,)
        again = neighbour_counts(part, Side.of(partner), 3)
        np.testing.assert_array_equal(np.sort(again.rows), np.arange(300))
