"""Round-to-nearest against a plain loop, and the properties a user counts on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.errors import BAD_INPUT, BnError
from bntools.kernels.grouped.bits import unpack
from bntools.kernels.grouped.operations import dequantize
from bntools.tools.quantize.fixed.round_to_nearest import round_to_nearest


def reference(w, bits, group, symmetric):
    """The definition: one row, one group at a time."""
    out = np.zeros_like(w)
    width = w.shape[1] if group == -1 else group
    for i in range(w.shape[0]):
        for start in range(0, w.shape[1], width):
            g = w[i, start : start + width]
            levels = 2**bits - 1
            if g.min() == g.max():
                s = abs(g[0]) or np.float32(1)
            elif symmetric:
                s = np.abs(g).max() * np.float32(2 / levels)
            else:
                s = (max(g.max(), np.float32(0)) - min(g.min(), np.float32(0))) / np.float32(levels)
            s = np.float32(np.float16(s))
            z = (
                np.float32(2 ** (bits - 1))
                if symmetric
                else np.clip(np.round(-min(g.min(), np.float32(0)) / s), 0, levels)
            )
            out[i, start : start + width] = (np.clip(np.round(g / s) + z, 0, levels) - z) * s
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 8), st.integers(1, 9), st.integers(1, 70), st.sampled_from([-1, 8, 16, 32, 128]),
    st.booleans(), st.integers(0, 999),
)  # fmt: skip
def test_it_equals_the_plain_loop(bits, rows, cols, group, symmetric, seed):
    torch.manual_seed(seed)
    w = torch.randn(rows, cols) * 0.1
    found = dequantize(round_to_nearest(w, bits, group, symmetric))
    np.testing.assert_array_equal(found.numpy(), reference(w.numpy(), bits, group, symmetric))


@pytest.mark.parametrize("group", [-1, 32])
def test_per_ic_is_per_oc_of_the_transpose(group):
    w = torch.randn(50, 70)
    ic = dequantize(round_to_nearest(w, 3, group, False, flipped=True))
    assert torch.equal(ic, dequantize(round_to_nearest(w.T.contiguous(), 3, group, False)).T)


def test_scaling_one_input_column_leaves_the_others_bit_identical_per_ic():
    """The point of per-IC: an outlier channel spoils only its own column."""
    w = torch.randn(64, 48)
    loud = w.clone()
    loud[:, 7] *= 100
    quiet = [i for i in range(48) if i != 7]
    ic = [dequantize(round_to_nearest(x, 3, 32, False, flipped=True))[:, quiet] for x in (w, loud)]
    oc = [dequantize(round_to_nearest(x, 3, 32, False))[:, quiet] for x in (w, loud)]
    assert torch.equal(*ic)
    assert not torch.equal(*oc)


def test_more_bits_never_hurt():
    w = torch.randn(64, 256)
    errors = [
        float((dequantize(round_to_nearest(w, bits, 64, False)) - w).square().mean()) for bits in range(2, 9)
    ]
    assert all(after < before for before, after in itertools.pairwise(errors))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.booleans(), st.integers(0, 99))
def test_the_error_stays_within_half_a_step(bits, symmetric, seed):
    torch.manual_seed(seed)
    w = torch.randn(8, 64)
    coded = round_to_nearest(w, bits, 32, symmetric)
    step = coded.scales.float().repeat_interleave(32, 1)
    # z is rounded, so an end of the range may be half a step outside; symmetric grids reach max|w| - step/2.
    assert bool(((dequantize(coded) - w).abs() <= step * 1.01).all())


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5, 3.0, -1024.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_constant_group_is_exact(value, symmetric):
    w = torch.full((3, 40), value)
    assert torch.equal(dequantize(round_to_nearest(w, 3, 16, symmetric)), w)


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e5, 1e30])
def test_weights_outside_the_range_of_float16_are_kept(size):
    w = torch.randn(4, 64) * size
    coded = round_to_nearest(w, 8, 32, False)
    assert float((dequantize(coded) - w).abs().max() / w.abs().max()) < 0.01
    assert coded.scales.dtype == (torch.float16 if size == 1e5 else torch.float32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0), (2, 39)])
def test_a_weight_that_is_no_number_is_reported(bad, place):
    w = torch.randn(3, 40)
    w[place] = bad
    with pytest.raises(BnError, match="1 weights are NaN") as caught:
        round_to_nearest(w, 4, 16, False)
    assert caught.value.code == BAD_INPUT


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_taken(dtype):
    w = torch.randn(8, 64).to(dtype)
    assert torch.equal(
        dequantize(round_to_nearest(w, 4, 32, False)), dequantize(round_to_nearest(w.float(), 4, 32, False))
    )


def test_three_bits_take_three_bits():
    coded = round_to_nearest(torch.randn(32, 256), 3, 128, False)
    assert coded.codes.numel() * 8 == 32 * 256 * 3
    assert int(unpack(coded.codes, 3, 256).max()) <= 7
