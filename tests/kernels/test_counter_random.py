"""Random numbers from counters: the artifacts of the future depend on every bit of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels import counter_random

MASK = (1 << 64) - 1


def word(key: int, index: int) -> int:
    """The specification of `counter.word`: SplitMix64's output number `index` from state `key`."""
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.integers(0, 1 << 70), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_words_are_those_of_the_definition_wherever_one_starts(seed, stream, start):
    key = int(counter_random.key_of(seed, stream))
    assert counter_random.words(seed, stream, start, 3).tolist() == [word(key, start + i) for i in range(3)]


def test_a_seed_gives_the_bits_it_gave_when_it_was_written():
    """Golden: SplitMix64's published first output of state 0, and digests of our own streams."""
    assert word(0, 0) == 0xE220A8397B1DCDAF
    streams = np.concatenate(
        [counter_random.words(seed, stream, 0, 1000) for seed in (0, 7) for stream in (1, 100)]
    )
    assert hashlib.sha256(streams.tobytes()).hexdigest()[:16] == "5b85e45e913cd44c"
    assert hashlib.sha256(counter_random.normal_table().tobytes()).hexdigest()[:16] == "ee46eda6f743ea9b"
    assert (
        hashlib.sha256(counter_random.normals(3, 1, 0, 1000).tobytes()).hexdigest()[:16] == "4f66f3f019ddc248"
    )
    assert (
        hashlib.sha256(counter_random.permutation(5, 11, 1000).tobytes()).hexdigest()[:16]
        == "649c80a5eee1ca09"
    )


def test_normals_have_the_moments_of_a_normal_distribution():
    x = counter_random.normals(1, 2, 0, 1 << 20).astype(np.float64)
    error = 1 / np.sqrt(len(x))
    assert abs(x.mean()) < 4 * error
    assert abs(x.var() - 1) < 4 * np.sqrt(2) * error
    assert abs((x**4).mean() - 3) < 4 * np.sqrt(96) * error
    table = counter_random.normal_table()
    assert np.array_equal(table, -table[::-1])


def test_streams_and_seeds_do_not_repeat_each_other():
    signs = [
        np.where(counter_random.words(seed, stream, 0, 1 << 16) & np.uint64(1), 1.0, -1.0)
        for seed in range(3)
        for stream in range(3)
    ]
    correlation = np.corrcoef(signs)
    assert np.abs(correlation - np.eye(9)).max() < 5 / 256


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 9))
def test_a_permutation_holds_every_number_once(count, seed):
    assert sorted(counter_random.permutation(seed, 1, count).tolist()) == list(range(count))


def test_every_order_of_four_is_equally_likely():
    orders = [tuple(counter_random.permutation(seed, 3, 4)) for seed in range(4800)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 55  # chi-square with 23 degrees of freedom, p = 2e-4


def test_uniforms_fill_the_unit_interval():
    u = counter_random.uniforms(0, 5, 0, 100_000)
    assert 0 <= u.min() < 1e-3
    assert 1 - 1e-3 < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(u))


def test_a_negative_seed_is_refused_not_wrapped():
    with pytest.raises(ValueError, match="negative"):
        counter_random.key_of(-1, 0)
