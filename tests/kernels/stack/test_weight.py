"""Stacked weights in memory against their spelled-out form: levels in few bits, rows, products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.stacked_samples import draw, sample

from bntools.kernels.stack import compact_levels as compacted
from bntools.kernels.stack import weight as stack_weight

SHAPES = [
    (1, 1),
    (3, 8),
    (5, 21),
    (130, 67),
    (300, 40),
]  # out, in: also more rows than are turned over at once


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("largest", [0, 7, 8, 127, 128, 15000, 32767])
def test_levels_come_back_and_take_the_bits_they_need(rows, cols, largest):
    levels = draw(rows, cols, largest)
    found = compacted.compact(levels)
    assert np.array_equal(compacted.expand(found), levels.T)
    sizes = []
    for bits in (4, 8):
        half = 1 << (bits - 1)
        listed = int(((levels < -half) | (levels >= half)).sum())
        sizes.append(rows * -(-cols // 8) * bits + 6 * listed + 4 * (rows + 1))
    assert found.nbytes == min(sizes)


def test_levels_most_of_which_are_no_bytes_come_back():
    levels = np.random.default_rng(0).integers(-32768, 32768, (13, 200)).astype(np.int16)
    assert np.array_equal(compacted.expand(compacted.compact(levels)), levels.T)


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("largest", [7, 127, 15000])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("trellis", [0, 1, 2])
def test_rows_of_a_weight_are_its_levels_and_the_fractions_of_their_planes_scaled(
    rows, cols, largest, plain, trellis
):
    for planes in (0, 1, 3, 7):
        w = sample(rows, cols, largest, planes, plain, planes, trellis)
        which = np.random.default_rng(1).permutation(rows)[: rows // 2 + 1]
        assert np.array_equal(stack_weight.rows(w, which), stack_weight.rows_reference(w, which))


@pytest.mark.parametrize(("rows", "cols"), [*SHAPES, (2000, 300)])
@pytest.mark.parametrize("largest", [7, 127, 15000])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("trellis", [0, 1, 2])
def test_a_product_is_that_of_the_rows_whatever_the_threads(rows, cols, largest, plain, trellis):
    w = sample(rows, cols, largest, 7, plain, rows, trellis)
    x = np.random.default_rng(2).standard_normal(cols).astype(np.float32)
    dense = stack_weight.rows_reference(w, np.arange(rows)).astype(np.float64)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(stack_weight.product(w, x))
    finally:
        torch.set_num_threads(threads)
    allowed = 1e-6 * (np.abs(dense) @ np.abs(x) + np.abs(w.scales.row) * (np.abs(w.scales.col) @ np.abs(x)))
    assert (np.abs(found[0] - dense @ x) <= allowed + 1e-30).all()
    assert np.array_equal(*found)


def test_a_row_of_all_planes_all_of_whose_bits_are_1_is_half_the_sum_of_their_weights():
    """The fraction of each weight is then the largest that a byte has to hold."""
    w = sample(3, 64, 7, 7, True, trellis=2)
    w = w._replace(bits=np.full_like(w.bits, 255), depth=np.full_like(w.depth, 7))
    multiple = compacted.expand(w.levels) + np.float32((127 + 48) / 256)
    wanted = multiple * (w.scales.row[:, None] * w.scales.col)
    assert np.array_equal(stack_weight.rows(w, np.arange(3)), wanted)
    x = np.eye(64, dtype=np.float32)
    assert np.allclose([stack_weight.product(w, row) for row in x], wanted.T, rtol=1e-6, atol=0)
