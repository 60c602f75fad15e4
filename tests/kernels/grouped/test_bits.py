"""Packed codes: a bit stream anyone can read, and nothing lost in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bntools.kernels.grouped.bits import BLOCK, pack, pack_reference, unpack, unpack_reference

bit_counts = st.integers(1, 8)


def random_codes(bits: int, *shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1 << bits, shape, generator=random, dtype=torch.uint8)


def pack_row(codes: list[int], bits: int) -> list[int]:
    """The definition: the row is one large number, code j at bit j * bits, written little-endian."""
    stream = 0
    for j, code in enumerate(codes):
        stream |= code << (j * bits)
    return list(stream.to_bytes(-(-len(codes) * bits // 8), "little"))


@settings(deadline=None, max_examples=150)
@given(bit_counts, st.integers(0, 5), st.integers(0, 200), st.integers(0, 9999))
def test_every_row_is_the_little_endian_stream_of_the_definition(bits, rows, cols, seed):
    codes = random_codes(bits, rows, cols, seed=seed)
    defined = torch.tensor([pack_row(row, bits) for row in codes.tolist()], dtype=torch.uint8).reshape(
        rows, -1 if rows else 0
    )
    for packed in (pack(codes, bits), pack_reference(codes, bits)):
        assert packed.shape == (rows, -(-cols * bits // 8))
        assert torch.equal(packed.reshape(defined.shape), defined)


@settings(deadline=None, max_examples=150)
@given(bit_counts, st.lists(st.integers(0, 4), max_size=3), st.integers(0, 300), st.integers(0, 9999))
def test_no_code_is_lost_in_a_round_trip(bits, leading, cols, seed):
    codes = random_codes(bits, *leading, cols, seed=seed)
    packed = pack(codes, bits)
    assert torch.equal(unpack(packed, bits, cols), codes)
    assert torch.equal(unpack_reference(packed, bits, cols), codes)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("cols", [8 * BLOCK - 8, 8 * BLOCK + 8, 8 * BLOCK + 3])
def test_codes_beyond_one_block_are_neither_lost_nor_shifted(bits, cols):
    codes = random_codes(bits, 2, cols)
    packed = pack(codes, bits)
    assert torch.equal(packed, pack_reference(codes, bits))
    assert torch.equal(unpack(packed, bits, cols), codes)


@pytest.mark.parametrize("bits", range(1, 8))
def test_damaged_padding_bits_do_not_reach_the_codes(bits):
    codes = random_codes(bits, 7, 5)
    packed = pack(codes, bits)
    used = 5 * bits - 8 * (packed.shape[1] - 1)
    packed[:, -1] |= (255 << used) & 255
    assert torch.equal(unpack(packed, bits, 5), codes)


@pytest.mark.parametrize("view", [lambda t: t[:, 1:], lambda t: t[::2], lambda t: t.T])
def test_a_view_into_a_larger_tensor_packs_like_a_copy(view):
    codes = view(random_codes(3, 16, 25))
    packed = pack(codes, 3)
    assert torch.equal(packed, pack(codes.clone(memory_format=torch.contiguous_format), 3))
    wider = torch.cat((packed[:, :1], packed), 1)
    assert torch.equal(unpack(wider[:, 1:], 3, codes.shape[1]), codes)


@pytest.mark.parametrize("bits", [3, 8])
def test_the_result_shares_no_memory_with_the_argument(bits):
    codes = random_codes(bits, 2, 16)
    packed = pack(codes, bits)
    copy = codes.clone()
    unpacked = unpack(packed, bits, 16)
    codes.zero_(), packed.zero_()
    assert torch.equal(unpacked, copy)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: pack(torch.zeros(1, 8, dtype=torch.uint8), 9), "9"),
        (lambda: pack(torch.zeros(1, 8, dtype=torch.uint8), 0), "0"),
        (lambda: unpack(torch.zeros(1, 8, dtype=torch.uint8), 9, 8), "9"),
        (lambda: pack(torch.zeros(1, 8), 3), "float32"),
        (lambda: unpack(torch.zeros(1, 3, dtype=torch.int32), 3, 8), "int32"),
        (lambda: pack(torch.full((1, 8), 11, dtype=torch.uint8), 3), "code 11"),
        (lambda: unpack(torch.zeros(1, 4, dtype=torch.uint8), 3, 8), "got 4"),
        (lambda: unpack(torch.zeros(1, 3, dtype=torch.uint8), 3, 9), "got 3"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
