"""Run by test_ngrams_triton.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from support.ngram_samples import packed

from bntools.kernels.ngrams import gpu as ngrams_gpu
from bntools.kernels.ngrams.ngrams import ngram_stats_reference

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_ngrams_triton.py"


def batch(seed: int, longest: int, refs: int, vocabulary: int):
    rng = np.random.default_rng(seed)

    def sentence():
        return rng.integers(0, vocabulary, rng.integers(0, longest + 1)).tolist()

    return [sentence() for _ in range(4)], [
        [sentence() for _ in range(rng.integers(1, refs + 1))] for _ in range(4)
    ]


CASES = [
    ({"ROWS": 8, "COLS": 4}, 12, 3, 2, 4),
    ({"ROWS": 16, "COLS": 8}, 40, 2, 3, 6),
    (ngrams_gpu.TILE, 70, 1, 9, 4),
]


@pytest.mark.parametrize(("tile", "longest", "refs", "vocabulary", "max_n"), CASES)
def test_the_gpu_counts_what_the_definition_counts(tile, longest, refs, vocabulary, max_n, monkeypatch):
    monkeypatch.setattr(ngrams_gpu, "TILE", tile)
    data = batch(longest, longest, refs, vocabulary)
    for dtype in (torch.int64, torch.int32):
        got = ngrams_gpu.ngram_stats(*packed(data, dtype), max_n)
        np.testing.assert_array_equal(got.numpy(), ngram_stats_reference(*data, max_n))


def test_the_gpu_passes_over_a_missing_reference():
    hyps, refs = batch(1, 30, 1, 3)
    hyp, others, first, last = packed((hyps, [[*row, [0, 1, 2]] for row in refs]), torch.int64)
    length = torch.where(torch.arange(len(others.length)) % 2 == 1, -1, others.length)
    got = ngrams_gpu.ngram_stats(hyp, others._replace(length=length), first, last)
    np.testing.assert_array_equal(got.numpy(), ngram_stats_reference(hyps, refs))


def test_ids_beyond_32_bits_are_told_apart():
    hyps, refs = [[1, 2**32 + 1, -1]], [[[2**32 + 1, 2**33 + 1, -1]]]
    got = ngrams_gpu.ngram_stats(*packed((hyps, refs), torch.int64))
    np.testing.assert_array_equal(got.numpy(), ngram_stats_reference(hyps, refs))
