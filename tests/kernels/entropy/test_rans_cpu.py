"""Lanes decoded side by side give what each gives alone, and refuse what each refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.entropy import dependent_trellis, rans, rans_cpu


def matrix(seed: int, cols: int, rows: int, lane: int, sets: int):
    """A coded matrix, with an escaped level in each lane: what `decode_run` takes, and the levels."""
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.laplace(0, 2, (cols, rows))).astype(np.int16)
    levels[::lane, rng.integers(rows)] = rng.choice([-32768, 128, 32767, -1])
    classes = rng.integers(-5, 70, rows).astype(np.int16), rng.integers(-70, 70, cols).astype(np.int16)
    tables = np.empty(levels.shape, np.uint8)
    rans.table_indices(levels, *classes, sets, dependent_trellis.MACHINE, tables)
    frequencies = rans.normalize(rans.count(levels, tables, rans.CLASSES * sets))
    packed = rans.cumulative(frequencies)
    parts = [slice(at, at + lane) for at in range(0, cols, lane)]
    words = [rans.encode_lane(levels[part], tables[part], packed) for part in parts]
    bounds = np.cumsum([3, *map(len, words)])  # there are words before them, those of the sides
    flat = np.concatenate([np.full(3, 7, np.uint16), *words])
    return (
        flat,
        bounds,
        (*classes, lane, sets, packed, rans.slots(frequencies), dependent_trellis.MACHINE),
        levels,
    )


def alone(words, bounds, given, shape):
    """Levels of each lane on its own, and which lanes are sound."""
    row, col, lane, sets, packed, symbols, machine = given
    found, good = np.zeros(shape, np.int16), []
    for at in range(len(bounds) - 1):
        part = slice(at * lane, (at + 1) * lane)
        own = words[bounds[at] : bounds[at + 1]]
        good.append(rans.decode_lane(own, row, col[part], sets, packed, symbols, machine, found[part]))
    return found, good


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("lane", [1, 2, 3, 5, 40])
def test_any_number_of_lanes_the_last_one_short_or_not_come_back(sets, lane):
    for cols in (1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 20, 39):
        words, bounds, given, levels = matrix(cols, cols, 9, min(lane, cols), sets)
        found = np.zeros_like(levels)
        assert rans_cpu.decode_run(words, bounds, *given, found)
        assert np.array_equal(found, levels)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    cols=st.integers(1, 17),
    sets=st.sampled_from([1, 2]),
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 65535)), max_size=2),
    shift=st.sampled_from([0, 0, -1, 1, 10**6]),
)
def test_what_a_lane_alone_refuses_is_refused_and_nothing_else(seed, cols, sets, damage, shift):
    words, bounds, given, levels = matrix(seed, cols, 9, min(2, cols), sets)
    for at, word in damage:
        words[3 + at % (len(words) - 3)] = word
    place = seed % len(bounds)
    bounds[place] = np.clip(
        bounds[place] + shift, bounds[max(place - 1, 0)], bounds[min(place + 1, len(bounds) - 1)]
    )
    wanted, good = alone(words, bounds, given, levels.shape)
    found = np.zeros_like(levels)
    assert rans_cpu.decode_run(words, bounds, *given, found) == all(good)
    assert not all(good) or np.array_equal(found, wanted)
