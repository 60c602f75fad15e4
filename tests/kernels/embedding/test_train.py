"""Tensor trains against the table they stand for, and hash features that are even."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bntools.kernels.embedding.hashing import buckets, digests, hash_features
from bntools.kernels.embedding.train import contract, factors, row_factors


@pytest.mark.parametrize(("n", "d", "r"), [(1, 1, 1), (7, 8, 2), (60, 16, 3), (125, 6, 5)])
def test_a_contraction_gives_the_rows_of_the_whole_product(n, d, r):
    rows, widths = row_factors(n), factors(d)
    assert math.prod(rows) >= n
    assert math.prod(widths) == d
    generator, ends = torch.Generator().manual_seed(n), (1, r, r, 1)
    cores = [
        torch.randn(rows[j], ends[j], widths[j], ends[j + 1], generator=generator, dtype=torch.float64)
        for j in range(3)
    ]
    whole = torch.einsum("apbq,cqdr,ersf->acebdspf", *cores).reshape(math.prod(rows), d)
    torch.testing.assert_close(contract(cores, torch.arange(n)), whole[:n])


@pytest.mark.parametrize("n", [1, 2, 31, 33, 1000, 99_991])
def test_cores_hold_all_rows_with_few_to_spare(n):
    assert n <= math.prod(row_factors(n)) < 1.5 * n + 8


def test_hash_features_are_the_buckets_of_their_lookups_and_even():
    words = digests(f"v{i}" for i in range(2000))
    x = hash_features(words, 16, 3, 1)
    for j in (0, 15):
        expected = 2 * buckets(words, 1 << 20, 3, 1, j) / ((1 << 20) - 1) - 1
        np.testing.assert_allclose(x[:, j], expected, atol=1e-6)
    assert abs(x.mean()) < 5 / np.sqrt(3 * x.size)
    correlation = np.corrcoef(x.T) - np.eye(16)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
