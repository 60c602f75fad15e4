"""Grouped codes: the dense weights bit for bit, and products within the rounding of float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed_samples import random_packed

from bntools.kernels.grouped import cpu as grouped_cpu
from bntools.kernels.grouped import operations as grouped_operations
from bntools.kernels.grouped.bits import pack, unpack
from bntools.kernels.grouped.operations import (
    Packed,
    dequantize,
    dequantize_reference,
    matvec,
    matvec_reference,
)

samples = st.builds(
    random_packed,
    rows=st.integers(1, 40),
    cols=st.integers(1, 140),
    bits=st.integers(1, 8),
    group=st.sampled_from([-1, 1, 3, 8, 16, 24, 64, 500]),
    symmetric=st.booleans(),
    transposed=st.booleans(),
    seed=st.integers(0, 999),
    scales=st.sampled_from([torch.float16, torch.float32]),
)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def rounding(p: Packed, x: torch.Tensor) -> torch.Tensor:
    """Bound on the error of a product [..., out]: its length times 2^-24 of every magnitude summed.

    The fast product sums code * x and zero * x apart, hence code + zero + 2^bits (the top code of a word is taken
    8 too low and put right after the sum), and per-IC all rows of a column, hence their largest scale.
    """
    zeros = (
        torch.full(p.scales.shape, 2.0 ** (p.bits - 1))
        if p.zeros is None
        else unpack(p.zeros, p.bits, p.groups).float()
    )
    zeros = zeros.repeat_interleave(p.width, 1)[:, : p.cols]
    scales = p.scales.float().repeat_interleave(p.width, 1)[:, : p.cols]
    if p.transposed:
        scales = scales.amax(0, keepdim=True).expand_as(scales)
    magnitude = (unpack(p.codes, p.bits, p.cols).float() + zeros + 2.0**p.bits) * scales
    magnitude = magnitude.T if p.transposed else magnitude
    return 2.0**-24 * (p.shape[1] + 8) * x.abs().amax(-1, keepdim=True) * magnitude.sum(1)


@settings(deadline=None, max_examples=150)
@given(samples, st.sampled_from(DTYPES))
def test_the_fast_weights_are_the_reference_bit_for_bit(p, dtype):
    fast, slow = dequantize(p, dtype), dequantize_reference(p, dtype)
    assert fast.shape == p.shape
    assert fast.dtype == dtype
    assert torch.equal(fast, slow)


@settings(deadline=None, max_examples=150)
@given(samples, st.sampled_from([(), (1,), (3,), (2, 2)]))
def test_a_product_is_the_dense_product_within_float32_rounding(p, leading):
    x = torch.randn(*leading, p.shape[1], generator=torch.Generator().manual_seed(1))
    exact = x.double() @ dequantize_reference(p).double().T
    y = matvec(p, x)
    assert y.shape == (*leading, p.shape[0])
    assert ((y - exact).abs() <= rounding(p, x)).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_product_of_a_real_size_is_as_exact_as_the_dense_one(bits, transposed):
    p = random_packed(512, 768, bits, 128, transposed=transposed)
    x = torch.randn(p.shape[1], generator=torch.Generator().manual_seed(2))
    exact = dequantize_reference(p).double() @ x.double()
    assert grouped_operations._fits(p), "the fast way must be the one under test"
    mean_error = (matvec(p, x) - exact).abs().mean()
    dense_error = (matvec_reference(p, x) - exact).abs().mean()
    assert mean_error < 8 * dense_error


@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_join_without_a_seam(transposed, monkeypatch):
    monkeypatch.setattr(grouped_operations, "BLOCK", 200)
    p = random_packed(150, 72, 3, 16, transposed=transposed)
    assert torch.equal(dequantize(p), dequantize_reference(p))
    for count in (1, 3):
        x = torch.randn(count, p.shape[1])
        assert (
            (matvec(p, x) - x.double() @ dequantize_reference(p).double().T).abs() <= rounding(p, x)
        ).all()


def test_codes_at_their_zero_are_exactly_zero_weights():
    p = random_packed(4, 32, 4, 8, symmetric=True)
    p = p._replace(codes=pack(torch.full((4, 32), 8, dtype=torch.uint8), 4))
    assert not dequantize(p).any()


def test_a_transposed_weight_is_the_transpose():
    p = random_packed(6, 20, 3, 8)
    assert torch.equal(dequantize(p._replace(transposed=True)), dequantize(p).T)


@pytest.mark.parametrize("transposed", [False, True])
def test_one_input_that_is_not_finite_is_not_hidden(transposed):
    p = random_packed(64, 64, 4, 16, transposed=transposed)
    x = torch.ones(64)
    x[5] = float("nan")
    assert not matvec(p, x).isfinite().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_product_comes_back_in_the_dtype_of_the_vector(dtype):
    p = random_packed(16, 32, 4, 16)
    x = torch.randn(32).to(dtype)
    torch.testing.assert_close(matvec(p, x), matvec_reference(p, x))
    assert matvec(p, x).dtype == dtype


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bits": 9}, "9"),
        ({"group": 0}, "group 0"),
        ({"cols": 33}, "33 columns"),
        ({"scales": torch.ones(4, 3)}, "scales"),
        ({"zeros": torch.zeros(4, 9, dtype=torch.uint8)}, "zeros"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(change, named):
    p = random_packed(4, 32, 3, 8)._replace(**change)
    for call in (dequantize, lambda p: matvec(p, torch.ones(32))):
        with pytest.raises(ValueError, match=named):
            call(p)


def test_a_vector_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"\[31\]"):
        matvec(random_packed(4, 32, 3, 8), torch.ones(31))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_code_and_zero_of_every_width_is_multiplied_right(transposed, symmetric):
    """Small whole numbers: every sum is exact, so the product must be, to the last bit."""
    for bits in range(1, 9):
        p = random_packed(37, 200, bits, 40, symmetric=symmetric, transposed=transposed)
        p = p._replace(scales=torch.ones_like(p.scales))
        x = torch.randint(-3, 4, (p.shape[1],), generator=torch.Generator().manual_seed(bits)).float()
        assert torch.equal(matvec(p, x), dequantize_reference(p) @ x), bits


@pytest.mark.parametrize("transposed", [False, True])
def test_threads_share_the_work_without_changing_a_bit(transposed, monkeypatch):
    p = random_packed(150, 264, 3, 24, transposed=transposed)
    x = torch.randn(p.shape[1], generator=torch.Generator().manual_seed(3))
    alone = matvec(p, x)
    monkeypatch.setattr(grouped_cpu, "CHUNK", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(matvec(p, x), alone)


def test_what_lies_behind_the_last_row_does_not_matter():
    """The last word of 3-bit codes is three bytes, and words are read as four."""
    p = random_packed(4, 8, 3, 8)
    room = torch.full((p.codes.numel() + 64,), 255, dtype=torch.uint8)
    room[: p.codes.numel()] = p.codes.flatten()
    inside = p._replace(codes=room[: p.codes.numel()].view(p.codes.shape))
    x = torch.randn(8, generator=torch.Generator().manual_seed(4))
    assert torch.equal(matvec(inside, x), matvec(p, x))
