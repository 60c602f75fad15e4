"""Which latents a row uses: exactly the largest scores, however the product was taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.sparse import selection
from bntools.kernels.sparse.selection import SparseEncoder

HALVES = [False, True]


def example(seed: int, rows: int = 40, m: int = 96, d: int = 24, half: bool = False):
    rng = np.random.default_rng(seed)
    E = rng.standard_normal((m, d), np.float32) / np.float32(np.sqrt(d))
    bias = rng.standard_normal(m, np.float32) * np.float32(0.1)
    encoder = SparseEncoder(E, bias, torch.from_numpy(E).bfloat16() if half else None)
    return encoder, rng.standard_normal((rows, d), np.float32)


@pytest.mark.parametrize("half", HALVES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 60))
def test_the_k_largest_scores_are_the_reference(half, seed, k):
    encoder, X = example(seed, half=half)
    latents, values = selection.top(encoder, X, k)
    wanted, sizes = selection.top_reference(encoder, X, k)
    assert np.allclose(values, sizes, atol=0.02 if half else 1e-5)  # of scores near 0, bfloat16 may miss some
    clear = (
        np.abs(np.diff(sizes, axis=1)).min(initial=1) > 1e-5
    )  # equal but for rounding: either order is right
    if clear:
        assert np.array_equal(latents, wanted)


def test_ties_go_to_the_lower_latent():
    encoder = SparseEncoder(np.ones((6, 2), np.float32), np.zeros(6, np.float32))
    latents, values = selection.top(encoder, np.ones((3, 2), np.float32), 4)
    assert latents.tolist() == [[0, 1, 2, 3]] * 3
    assert (values == 2).all()


def test_scores_that_are_not_positive_are_not_taken():
    encoder = SparseEncoder(-np.eye(4, dtype=np.float32), np.array([0, 0, 0, 3], np.float32))
    latents, values = selection.top(encoder, np.ones((2, 4), np.float32), 3)
    assert values.tolist() == [[2, 0, 0]] * 2
    assert latents[:, 0].tolist() == [3, 3]


@pytest.mark.parametrize("half", HALVES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), total=st.integers(1, 900))
def test_a_batch_takes_exactly_its_largest_scores(half, seed, total):
    encoder, X = example(seed, half=half)
    found = selection.top_of_batch(encoder, X, total)
    scores = np.maximum(X @ encoder.E.T + encoder.bias, 0)
    wanted = np.sort(scores.reshape(-1))[::-1][:total]
    wanted = wanted[wanted > 0]
    assert np.allclose(np.sort(found.values)[::-1], wanted, atol=1e-5)
    assert np.allclose(scores[found.pair_rows, found.latents], found.values, atol=1e-5)


@pytest.mark.parametrize("half", HALVES)
def test_scores_beyond_a_threshold_are_all_found(half):
    encoder, X = example(3, half=half)
    theta = np.random.default_rng(0).uniform(0, 1.5, 96).astype(np.float32)
    found = selection.beyond(encoder, X, theta)
    scores = X @ encoder.E.T + encoder.bias
    mask = np.zeros_like(scores, bool)
    mask[found.pair_rows, found.latents] = True
    unsure = np.abs(scores - theta) < 1e-5
    assert (mask == (scores > theta))[~unsure].all()


def test_threads_change_nothing():
    encoder, X = example(5, rows=200)
    one, three = (selection.top(encoder, X, 7, threads) for threads in (1, 3))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])


def test_padding_keeps_the_largest():
    support = selection.Support(
        np.array([0, 3, 3]), np.array([4, 1, 2], np.int32), np.array([1, 3, 2], np.float32)
    )
    latents, values = support.padded(2)
    assert latents.tolist() == [[1, 2], [0, 0]]
    assert values.tolist() == [[3, 2], [0, 0]]
