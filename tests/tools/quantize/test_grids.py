"""The grid search never loses to min-max, and finds what a finer search finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.tools.quantize.fixed import grids


def group_errors(w, width, bits, scales, zeros, h):
    """sum h (w - q)^2 of every group, one group at a time."""
    out = torch.zeros(scales.shape)
    for g in range(scales.shape[1]):
        part, weight = w[:, g * width : (g + 1) * width], h[g * width : (g + 1) * width]
        s, z = scales[:, g, None].float(), zeros[:, g, None]
        q = ((part / s).round() + z).clamp(0, 2**bits - 1)
        out[:, g] = (((q - z) * s - part).square() * weight).sum(1)
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 8), st.integers(1, 9), st.integers(1, 70), st.sampled_from([8, 16, 32, 70]),
    st.booleans(), st.booleans(), st.integers(0, 999),
)  # fmt: skip
def test_no_group_is_worse_than_with_minmax(bits, rows, cols, width, symmetric, heavy, seed):
    torch.manual_seed(seed)
    width = min(width, cols)
    w = torch.randn(rows, cols) * 0.1
    w = w**3 if heavy else w
    h = torch.rand(cols) ** 4
    plain = grids.minmax(*grids.limits(w, width), bits, symmetric)
    found = grids.weighted(w, width, bits, symmetric, h)
    before = group_errors(w, width, bits, *plain, h)
    after = group_errors(w, width, bits, *found, h)
    assert (after <= before * (1 + 1e-5) + 1e-12).all()


def test_an_outlier_on_a_silent_input_is_clipped_away():
    torch.manual_seed(0)
    w = torch.randn(64, 128) * 0.05
    w[:, 5] = 1.0
    h = torch.ones(128)
    h[5] = 0.0
    plain = grids.minmax(*grids.limits(w, 128), 3, False)
    found = grids.weighted(w, 128, 3, False, h)
    ratio = group_errors(w, 128, 3, *found, h).sum() / group_errors(w, 128, 3, *plain, h).sum()
    assert float(ratio) < 0.5


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_is_close_to_an_exhaustive_one(bits):
    torch.manual_seed(1)
    w, h = torch.randn(20, 32), torch.rand(32)
    best = torch.full((20, 1), torch.inf)
    low, high = grids.limits(w, 32)
    for shrink in torch.linspace(0.2, 1.1, 181):
        scale = (high - low) * shrink / (2**bits - 1)
        for zero in range(2**bits):
            errors = group_errors(w, 32, bits, scale, torch.full_like(scale, float(zero)), h)
            best = torch.minimum(best, errors)
    found = group_errors(w, 32, bits, *grids.weighted(w, 32, bits, False, h), h)
    assert float(found.sum() / best.sum()) < 1.06


def test_the_result_does_not_depend_on_the_size_of_blocks(monkeypatch):
    torch.manual_seed(2)
    w, h = torch.randn(37, 50), torch.rand(50)
    whole = grids.weighted(w, 16, 3, False, h)
    monkeypatch.setattr(grids, "BLOCK", 4800)
    small = grids.weighted(w, 16, 3, False, h)
    assert torch.equal(whole[0], small[0])
    assert torch.equal(whole[1], small[1])
