"""The trellis code of a stack's planes against its shift register, stepped a row at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bntools.kernels.stack import plane_trellis
from bntools.kernels.stack import weight as stack_weight


def register(column: list[int]) -> list[tuple[int, int]]:
    """The (high, low) of each row, as the formula has it."""
    before, last, found = 0, 0, []
    for u in column:
        found.append((u ^ before, last))
        before, last = last, u
    return found


@given(rows=st.integers(0, 9), cols=st.integers(1, 21), seed=st.integers(0, 99))
def test_every_column_of_a_band_goes_through_a_register_of_its_own(rows, cols, seed):
    u = np.random.default_rng(seed).integers(0, 2, (rows, cols), np.uint8)
    lines = plane_trellis.decode(np.packbits(u, axis=1, bitorder="little"))
    high, low = (np.unpackbits(line, axis=1, bitorder="little")[:, :cols] for line in lines)
    for col in range(cols):
        wanted = register(u[:, col].tolist())
        assert list(zip(high[:, col].tolist(), low[:, col].tolist(), strict=True)) == wanted


@pytest.mark.parametrize("rows", range(6))
def test_a_band_cut_short_has_the_same_first_rows(rows):
    bits = np.random.default_rng(0).integers(0, 256, (6, 3), np.uint8)
    for whole, part in zip(plane_trellis.decode(bits), plane_trellis.decode(bits[:rows]), strict=True):
        assert np.array_equal(whole[:rows], part)


@given(column=st.lists(st.integers(0, 1), max_size=9))
def test_the_states_a_writer_goes_through_are_those_of_the_register(column):
    state, moves = 0, []
    for u in column:
        state, move = plane_trellis.step(state, u)
        moves.append(move)
    assert moves == [2 * high + low for high, low in register(column)]


def test_a_state_has_two_moves_half_a_cell_apart_and_the_moves_are_the_four_steps():
    """A move is worth (high - 1/2) / 2 + (low - 1/2) / 4."""
    worth = [(high - 0.5) / 2 + (low - 0.5) / 4 for high in (0, 1) for low in (0, 1)]
    assert worth == [-3 / 8, -1 / 8, 1 / 8, 3 / 8]
    ways = [[plane_trellis.step(state, u) for u in (0, 1)] for state in range(plane_trellis.STATES)]
    assert all(abs(worth[one[1]] - worth[two[1]]) == 0.5 for one, two in ways)
    assert {move for pair in ways for _, move in pair} == set(range(4))
    assert sorted(state for pair in ways for state, _ in pair) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("trellis", [0, 1, 2])
def test_so_many_planes_have_as_many_lines_as_weights(trellis):
    planes = np.arange(8, dtype=np.uint8)
    found = plane_trellis.lines(planes, trellis)
    assert found.dtype == np.uint8
    for depth in planes.tolist():
        weights = stack_weight.line_weights(depth, trellis)
        assert found[depth] == plane_trellis.lines(depth, trellis) == len(weights)
        assert sum(weights) == (1 - 0.5**depth) + (1 - 0.5 ** min(depth, trellis)) / 2
    assert sum(stack_weight.line_weights(7, 2)) == 175 / 128
