"""N-gram statistics: the fast path against its specification, and what must not change them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ngram_samples import packed

from bntools.kernels.ngrams import cpu as ngrams_cpu
from bntools.kernels.ngrams import loops as ngram_loops
from bntools.kernels.ngrams import sorted as ngrams_sorted
from bntools.kernels.ngrams.ngrams import (
    distinct_ngrams,
    ngram_stats,
    ngram_stats_reference,
    others_stats,
    prefix_hits,
)

Batch = tuple[list[list[int]], list[list[list[int]]]]


def batch(seed: int, rows: int = 9, longest: int = 60, refs: int = 3, vocabulary: int = 4) -> Batch:
    """Random ids, lengths 0 to longest, one to `refs` references a row."""
    rng = np.random.default_rng(seed)

    def sentence(most: int) -> list[int]:
        return rng.integers(0, vocabulary, rng.integers(0, most + 1)).tolist()

    wide = int(rng.integers(0, longest + 1))
    others = [[sentence(wide) for _ in range(rng.integers(1, refs + 1))] for _ in range(rows)]
    return [sentence(longest) for _ in range(rows)], others


def mapped(data: Batch, change: Callable[[int], int]) -> Batch:
    """The batch with every id changed."""
    hyps, refs = data
    return [[*map(change, h)] for h in hyps], [[[*map(change, r)] for r in row] for row in refs]


def stats(data: Batch, max_n: int = 4, dtype: torch.dtype = torch.int64, **options: Any) -> np.ndarray:
    return ngram_stats(*packed(data, dtype), max_n, **options).numpy()


def check(data: Batch, max_n: int = 4, **options: Any) -> None:
    np.testing.assert_array_equal(stats(data, max_n, **options), ngram_stats_reference(*data, max_n))


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
    check(mapped(batch(seed, *shape), lambda x: x * scale + offset), max_n)


@pytest.mark.parametrize(("longest", "refs", "vocabulary"), [(2000, 1, 50), (1200, 4, 128_000), (700, 70, 9)])
def test_long_sentences_and_many_references_are_counted_exactly(
    longest: int, refs: int, vocabulary: int
) -> None:
    check(batch(5, 5, longest, refs, vocabulary))


@pytest.mark.parametrize("chunk", [1, 50, 300, 1 << 20])
def test_chunks_and_threads_do_not_change_counts(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams_cpu, "CHUNK", chunk)
    for threads in (1, 3):
        check(batch(2, rows=40), threads=threads)


def test_order_and_repetition_of_references_do_not_change_counts() -> None:
    hyps, refs = batch(3, refs=5)
    whole = stats((hyps, refs))
    np.testing.assert_array_equal(stats((hyps, [row[::-1] for row in refs])), whole)
    np.testing.assert_array_equal(stats((hyps, [row + row for row in refs])), whole)


def test_ids_of_32_bits_are_counted_the_same() -> None:
    check(batch(1), dtype=torch.int32)


def test_ids_that_all_fall_into_one_slot_are_told_apart() -> None:
    inverse = pow(
        ngram_loops.GOLDEN % 2**64, -1, 2**64
    )  # GOLDEN * (inverse * j) = j, of which the high bits are 0

    def collide(j: int) -> int:
        found = inverse * j % 2**64
        return found - 2**64 if found >= 2**63 else found

    check(mapped(batch(7, longest=200, vocabulary=150), collide))


def test_a_missing_reference_is_as_if_it_were_not_there() -> None:
    hyps, refs = batch(8, refs=1)
    hyp, others, first, last = packed((hyps, [[*row, [0, 1, 2]] for row in refs]), torch.int64)
    length = torch.where(torch.arange(len(others.length)) % 2 == 1, -1, others.length)
    got = ngram_stats(hyp, others._replace(length=length), first, last)
    np.testing.assert_array_equal(got, ngram_stats_reference(hyps, refs))


def test_a_sentence_against_itself_matches_all_its_ngrams() -> None:
    hyps, _ = batch(6)
    found = stats((hyps, [[h] for h in hyps]))
    np.testing.assert_array_equal(found[:, 2:6], found[:, 6:])


def test_of_two_references_as_near_the_shorter_counts() -> None:
    assert stats(([[1] * 12], [[[1] * 13, [1] * 11]]))[0, 1] == 11


def test_the_matches_of_every_prefix_are_those_of_the_prefix_alone() -> None:
    hyps, refs = batch(9, vocabulary=3)
    hits, begin = prefix_hits(*packed((hyps, refs), torch.int64))
    for hyp, row, at in zip(hyps, refs, begin.tolist(), strict=True):
        for t in range(len(hyp) + 1):
            want = ngram_stats_reference([hyp[:t]], [row])[0, 2:6]
            np.testing.assert_array_equal(hits[at : at + t].sum(0, dtype=torch.int64), want)


@pytest.mark.parametrize("group", [2, 3, 8])
def test_each_sample_is_counted_against_all_others_of_its_group(group: int) -> None:
    for seed in range(5):
        hyps, _ = batch(seed, rows=3 * group, longest=int([5, 40][seed % 2]), vocabulary=3)
        others = [
            [hyps[j] for j in range(i // group * group, i // group * group + group) if j != i]
            for i in range(len(hyps))
        ]
        hyp = packed((hyps, others), torch.int64)[0]
        np.testing.assert_array_equal(others_stats(hyp, group, 5), ngram_stats_reference(hyps, others, 5))


def test_distinct_ngrams_are_counted_over_sentences_not_across_them() -> None:
    hyps, refs = batch(10, vocabulary=3)
    hyp = packed((hyps, refs), torch.int64)[0]
    first, last = torch.tensor([0, 2, 2]), torch.tensor([2, 2, 9])
    for low, high, found in zip(first, last, distinct_ngrams(hyp, first, last, 5).tolist(), strict=True):
        rows = hyps[low:high]
        want = [len({tuple(h[i : i + n]) for h in rows for i in range(len(h) - n + 1)}) for n in range(1, 6)]
        assert found == want


def test_sorting_on_a_device_counts_the_same() -> None:
    for seed in range(8):
        data = batch(seed, longest=[9, 60][seed % 2], vocabulary=[2, 40][seed // 2 % 2])
        got = ngrams_sorted.ngram_stats(*packed(data, torch.int64), 5, 3)
        np.testing.assert_array_equal(got, ngram_stats_reference(*data, 5))


def test_nothing_is_read_back_by_the_host_while_a_device_sorts() -> None:
    """Tensors on the meta device hold no values: reading one raises."""
    hyp, refs, first, last = packed(batch(1), torch.int64)
    hyp, refs = (
        s._replace(**{k: getattr(s, k).to("meta") for k in ("ids", "start", "length")}) for s in (hyp, refs)
    )
    found = ngram_stats(hyp, refs, first.to("meta"), last.to("meta"), most=3)
    assert found.shape == (9, 10)
