"""The order of blocks: planes of a matrix in turn, what gains most a byte first, gains that fall."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.tools.stack_compress.order import Block, by_layer, by_score, greedy, merged

gains = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=200)
@given(gains)
def test_merged_gains_are_the_slopes_of_the_concave_hull(parts):
    slopes = merged(*zip(*parts, strict=True))
    assert all(before >= after - 1e-9 for before, after in pairwise(slopes))
    ends = [(0, 0.0)]
    for gain, size in parts:
        ends.append((ends[-1][0] + size, ends[-1][1] + gain))
    height = 0.0
    for at, ((x, _), slope) in enumerate(zip(ends[1:], slopes, strict=True), 1):
        height += slope * parts[at - 1][1]
        # the hull at x: the highest of all chords over it
        chords = [
            y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            for x0, y0 in ends
            for x1, y1 in ends
            if x0 < x1 and x0 <= x <= x1
        ]
        assert height == pytest.approx(max(chords), abs=1e-6)


def block(name, plane, gain, nbytes=10, band=0, index=0):
    return Block(name, index, plane, band, nbytes, gain, gain)


def test_a_plane_of_little_gain_comes_with_the_one_it_makes_way_for():
    blocks = [
        block("a", 1, 1.0),
        block("a", 2, 9.0),
        block("b", 1, 4.0, index=1),
        block("b", 2, 3.0, index=1),
    ]
    found = [(one.name, one.plane) for one in greedy(blocks, lambda one: one.gain)]
    assert found == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5)), min_size=1, max_size=20))
def test_in_no_order_does_a_plane_stand_before_the_one_below_it(parts):
    counts: dict[int, int] = {}
    blocks = []
    for index, gain in parts:
        counts[index] = counts.get(index, 0) + 1
        blocks.append(block(f"m{index}", counts[index], gain, index=index))
    for found in (greedy(blocks, lambda one: one.gain), by_layer(blocks),
                  by_score(blocks, lambda plane, level: [-one.gain for one in level])):  # fmt: skip
        assert sorted(map(str, found)) == sorted(map(str, blocks))
        for index in counts:
            planes = [one.plane for one in found if one.index == index]
            assert planes == sorted(planes)


def test_the_paper_s_order_takes_a_whole_level_by_falling_perplexity():
    blocks = [block(name, plane, 0.0, index=index) for index, name in enumerate("abc") for plane in (1, 2)]
    scores = {"a": 3.0, "b": 1.0, "c": 2.0}
    found = by_score(blocks, lambda plane, level: [scores[one.name] * plane for one in level])
    assert [(one.name, one.plane) for one in found] == [(name, plane) for plane in (1, 2) for name in "bca"]
