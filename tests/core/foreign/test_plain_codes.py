"""Plain codes, the common form between formats: what is not plain is not taken for it, words hold every code."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.foreign import plain_codes
from bntools.core.foreign.words import from_words, to_words
from bntools.core.packing.grouped import GroupSpec


@dataclass(frozen=True)
class Later(GroupSpec):
    """A spec of a later version, one field of which changes what codes mean."""

    lattice: int = 0


def test_a_field_that_changes_what_codes_mean_makes_them_no_plain_codes():
    known = {"bits": 4, "group": 32, "dim": "oc", "symmetric": False, "shape": (8, 32), "dtype": "F16"}
    assert plain_codes.is_plain(Later(**known, transposed=False))
    assert not plain_codes.is_plain(Later(**known, transposed=False, lattice=8))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 70), st.integers(0, 999))
def test_words_hold_every_code_dense_or_spaced(bits, rows, count, seed):
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, count), generator=random, dtype=torch.uint8)
    words = to_words(codes, bits)
    assert words.shape == (rows, -(-count * bits // 32))
    for row, line in zip(words.tolist(), codes.tolist(), strict=True):
        stream = sum((word & 0xFFFFFFFF) << (32 * index) for index, word in enumerate(row))
        assert stream == sum(code << (bits * index) for index, code in enumerate(line))
    assert torch.equal(from_words(words, bits, count, "w"), codes)
    each = 32 // bits
    fields = torch.nn.functional.pad(codes.long(), (0, -count % each)).view(rows, -1, each)
    spaced = (fields << (bits * torch.arange(each))).sum(-1).to(torch.int32)
    if spaced.shape != words.shape:
        assert torch.equal(from_words(spaced, bits, count, "w"), codes)
    if spaced.shape[1] > words.shape[1] + 1 or spaced.shape == words.shape:
        with pytest.raises(BnError, match="words a row") as caught:
            from_words(torch.nn.functional.pad(words, (0, 1)), bits, count, "w")
        assert caught.value.code == BAD_INPUT
