"""The trellis code: what a decoder needs of a column, and what the encoder gains by it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bntools.kernels.grouped import fixed_rate_trellis as trellis
from bntools.kernels.rounding.feedback import ColumnLevels, nearest

MEMORIES = sorted(trellis.POLYNOMIALS)


def reference(codes, memory):
    """Twice the level plus 1/2 of one segment, from the polynomials, one row at a time."""
    h1, h0 = trellis.POLYNOMIALS[memory]
    found = []
    for t in range(len(codes)):
        earlier = [int(codes[t - i]) & 1 if t >= i else 0 for i in range(memory + 1)]
        x = sum(bit for i, bit in enumerate(earlier) if h0 >> i & 1) % 2
        p = sum(bit for i, bit in enumerate(earlier) if h1 >> i & 1) % 2
        found.append(2 * ((int(codes[t]) & ~1) | x) + p)
    return found


def flat(x, bits, memory, scale=1.0):
    """One scale, and the zero in the middle, for all of x."""
    one = torch.full((1, x.shape[1]), float(scale))
    middle = torch.full_like(one, (2**bits - 1) / 2)
    return ColumnLevels(one, middle, torch.zeros(len(x), dtype=torch.int64), bits, memory)


@pytest.mark.parametrize("memory", MEMORIES)
def test_levels_are_those_of_the_polynomials(memory):
    codes = torch.randint(0, 8, (40, 3), dtype=torch.uint8)
    found = trellis.levels(codes, memory)
    for column in range(3):
        assert found[:, column].tolist() == reference(codes[:, column], memory)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_segment_is_read_without_the_ones_before_it(memory):
    codes = torch.randint(0, 4, (2 * trellis.SEGMENT + 3, 2), dtype=torch.uint8)
    found = trellis.levels(codes, memory)
    for start in range(0, len(codes), trellis.SEGMENT):
        rows = slice(start, start + trellis.SEGMENT)
        assert torch.equal(found[rows], trellis.levels(codes[rows], memory))


@pytest.mark.parametrize("memory", [2, 3])
def test_no_path_is_better_than_the_one_taken(memory):
    torch.manual_seed(memory)
    x = 3 * torch.rand(6) - 1.5
    _, values = nearest(x[None], flat(x[None], 2, memory))
    paths = torch.tensor(list(itertools.product(range(4), repeat=6)), dtype=torch.uint8)
    every = trellis.levels(paths.T.contiguous(), memory).float().T / 2 - 0.25 - 1.5
    best = (every - x).square().sum(1).min()
    assert float((values[0] - x).square().sum()) == pytest.approx(float(best), rel=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("memory", [0, 3, 5])
def test_the_decoder_finds_what_the_encoder_meant(bits, memory):
    x = 3 * torch.randn(4, 300)
    codes, values = nearest(x, flat(x, bits, memory, 0.75))
    levels = codes.float()
    if memory:
        levels = trellis.levels(codes.T.contiguous(), memory).T.float() / 2 - 0.25
    assert torch.equal((levels - (2**bits - 1) / 2) * 0.75, values)
    assert int(codes.max()) < 2**bits


@pytest.mark.parametrize(("memory", "decibel"), [(2, 0.9), (3, 1.0), (5, 1.1), (8, 1.2)])
def test_noise_falls_by_what_the_code_promises(memory, decibel):
    x = 6 * torch.rand(16, 1024) - 3
    _, values = nearest(x, flat(x, 3, memory))
    noise = float((values - x).square().mean())
    assert 10 * np.log10(1 / 12 / noise) > decibel  # 1 / 12: rounding to the nearest level
