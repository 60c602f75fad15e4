"""N-gram statistics: the fast path against its specification, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels import ngrams
from bntools.kernels.ngrams import ngram_stats, ngram_stats_reference

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def batch(seed: int, rows: int = 9, longest: int = 60, refs: int = 3, vocabulary: int = 4) -> Batch:
    """Random ids, lengths 0 to longest, references that may be missing but for the first."""
    rng = np.random.default_rng(seed)
    wide = int(rng.integers(0, longest + 1))
    hyp = rng.integers(0, vocabulary, (rows, longest))
    others = rng.integers(0, vocabulary, (rows, refs, wide))
    ref_len = rng.integers(-1, wide + 1, (rows, refs))
    ref_len[:, 0] = np.maximum(ref_len[:, 0], 0)
    return hyp, rng.integers(0, longest + 1, rows), others, ref_len


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(0, 60), st.integers(1, 8), st.integers(1, 8)),
    max_n=st.integers(1, 11),
    scale=st.sampled_from([1, 5000, 40000, 2**40]),
    offset=st.sampled_from([0, -3, 31999, -(2**63), 2**62]),
)
def test_counts_are_those_of_plain_counting(
    seed: int, shape: tuple[int, int, int, int], max_n: int, scale: int, offset: int
) -> None:
    hyp, hyp_len, refs, ref_len = batch(seed, *shape)
    data = hyp * scale + offset, hyp_len, refs * scale + offset, ref_len
    np.testing.assert_array_equal(ngram_stats(*data, max_n), ngram_stats_reference(*data, max_n))


@pytest.mark.parametrize(("longest", "refs", "vocabulary"), [(2000, 1, 50), (1200, 4, 128_000), (700, 70, 9)])
def test_long_sentences_and_many_references_are_counted_exactly(
    longest: int, refs: int, vocabulary: int
) -> None:
    data = batch(5, 5, longest, refs, vocabulary)
    np.testing.assert_array_equal(ngram_stats(*data), ngram_stats_reference(*data))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64])
def test_the_integer_type_of_the_ids_does_not_matter(dtype: type[np.integer]) -> None:
    hyp, hyp_len, refs, ref_len = batch(1)
    got = ngram_stats(hyp.astype(dtype), hyp_len.astype(np.int32), refs.astype(dtype), ref_len)
    np.testing.assert_array_equal(got, ngram_stats_reference(hyp, hyp_len, refs, ref_len))


@pytest.mark.parametrize("chunk", [1, 50, 300, 1 << 20])
@pytest.mark.parametrize("vocabulary", [5, 100_000, 2**50])
def test_chunks_and_threads_do_not_change_counts(
    chunk: int, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyp, hyp_len, refs, ref_len = batch(2, rows=40)
    data = hyp * (vocabulary // 5), hyp_len, refs * (vocabulary // 5), ref_len
    whole = ngram_stats_reference(*data)
    monkeypatch.setattr(ngrams, "CHUNK", chunk)
    for threads in (1, 3):
        np.testing.assert_array_equal(ngram_stats(*data, threads=threads), whole)


def test_order_and_repetition_of_references_do_not_change_counts() -> None:
    hyp, hyp_len, refs, ref_len = batch(3, refs=5)
    whole = ngram_stats(hyp, hyp_len, refs, ref_len)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_array_equal(ngram_stats(hyp, hyp_len, refs[:, order], ref_len[:, order]), whole)
    twice = np.concatenate([refs, refs], 1), np.concatenate([ref_len, ref_len], 1)
    np.testing.assert_array_equal(ngram_stats(hyp, hyp_len, *twice), whole)


def test_what_lies_beyond_a_length_is_not_read() -> None:
    hyp, hyp_len, refs, ref_len = batch(4)
    whole = ngram_stats(hyp, hyp_len, refs, ref_len)
    for filler in (0, -100, 2**62):
        hyp[np.arange(hyp.shape[1]) >= hyp_len[:, None]] = filler
        refs[np.arange(refs.shape[2]) >= ref_len[..., None]] = filler
        np.testing.assert_array_equal(ngram_stats(hyp, hyp_len, refs, ref_len), whole)


def test_a_sentence_against_itself_matches_all_its_ngrams() -> None:
    hyp, hyp_len, _, _ = batch(6)
    stats = ngram_stats(hyp, hyp_len, hyp[:, None], hyp_len[:, None])
    np.testing.assert_array_equal(stats[:, 2:6], stats[:, 6:])


def test_of_two_references_as_near_the_shorter_counts() -> None:
    stats = ngram_stats(np.ones((1, 12), int), np.array([12]), np.ones((1, 2, 13), int), np.array([[13, 11]]))
    assert stats[0, 1] == 11


def test_inputs_that_do_not_fit_are_refused_by_name() -> None:
    hyp, hyp_len, refs, ref_len = batch(7)
    with pytest.raises(ValueError, match="row 2 has no reference"):
        ngram_stats(hyp, hyp_len, refs, np.where(np.arange(9)[:, None] == 2, -1, ref_len))
    with pytest.raises(ValueError, match="integers"):
        ngram_stats(hyp.astype(float), hyp_len, refs, ref_len)
    with pytest.raises(ValueError, match="hyp_len must be"):
        ngram_stats(hyp, hyp_len + 100, refs, ref_len)
    with pytest.raises(ValueError, match="ref_len must be"):
        ngram_stats(hyp, hyp_len, refs, ref_len + 100)
    with pytest.raises(ValueError, match="max_n"):
        ngram_stats(hyp, hyp_len, refs, ref_len, 0)
    with pytest.raises(ValueError, match="need hyp"):
        ngram_stats(hyp[:3], hyp_len, refs, ref_len)
