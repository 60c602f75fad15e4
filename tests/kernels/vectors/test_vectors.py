"""Codes of vectors: bits where they are worth most, words as a plain search chooses them, factors that fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.vectors import allocation, locally_adaptive, loops, product


def cloud(n: int, d: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, d)) * np.geomspace(3, 0.05, d)).astype(np.float32)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=40), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_whole_bits_sum_to_the_budget_and_a_dead_coordinate_gets_none(variance, bits):
    variance = np.array(variance)
    given_bits = allocation.whole_bits(variance, bits)
    assert given_bits.sum() == min(bits, 8 * (variance > 0).sum())
    assert (given_bits[variance == 0] == 0).all()
    assert given_bits.max(initial=0) <= 8


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=40), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_groups_share_coordinates_without_repeating_one_and_rates_keep_the_budget(variance, count):
    variance = np.array(variance)
    worth = allocation.rates(variance, 8 * count)
    assert worth.sum() <= 8 * count + 1e-6
    assert worth.sum() >= min(8 * count, 8 * len(variance)) - 1e-3
    groups = allocation.share(variance, count)
    assert len(set(groups.order.tolist())) == len(groups.order)
    assert set(groups.order.tolist()) == set(np.flatnonzero(worth > 0).tolist())
    assert (np.diff(groups.start) > 0).all()
    assert groups.start[-1] == len(groups.order)


def test_packed_bits_fill_every_byte_and_never_more():
    bits = allocation.whole_bits(np.geomspace(9, 0.01, 50), 8 * 12)
    groups, fitted = allocation.pack(bits, 12)
    held = [
        int(fitted[groups.order[a:b]].sum()) for a, b in zip(groups.start[:-1], groups.start[1:], strict=True)
    ]
    assert held == [8] * 12
    assert (fitted == bits).all()


def test_codes_are_the_nearest_words():
    x = cloud(300, 12)
    book = product.vector_codebook(x, 4, seed=0)
    codes = product.encode(x, book, passes=0)
    for g in range(4):
        part = slice(book.groups.start[g], book.groups.start[g + 1])
        words, rows = book.words[part].T.astype(float), x[:, book.groups.order[part]].astype(float)
        apart = ((rows[:, None] - words[None]) ** 2).sum(2)
        assert np.allclose(apart[np.arange(300), codes[:, g]], apart.min(1), atol=1e-5)


def test_rounds_over_the_groups_lessen_the_angle_of_every_vector():
    x = cloud(400, 16, seed=1)
    book = product.vector_codebook(x, 3, seed=0)

    def cosine(passes):
        decoded = product.decode(product.encode(x, book, passes=passes), book, 16)
        return (x * decoded).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(decoded, axis=1)

    plain, better = cosine(0), cosine(2)
    assert (better >= plain - 1e-5).all()
    assert better.mean() > plain.mean()


@pytest.mark.parametrize("make", ["vector", "scalar"])
def test_the_factor_makes_the_product_of_a_vector_with_its_own_code_right(make):
    x = cloud(500, 20, seed=2)
    book = product.vector_codebook(x, 5, 0) if make == "vector" else product.scalar_codebook(x, 5)
    decoded = product.decode(product.encode(x, book), book, 20)
    factor = product.length_factor(x, decoded)
    assert np.allclose((x * decoded).sum(1) * factor, (x * x).sum(1), rtol=1e-4)


def test_a_vector_codebook_loses_less_than_grids_of_as_many_bits():
    x = cloud(3000, 24, seed=3)
    loss = [
        float(((x - product.decode(product.encode(x, book, passes=0), book, 24)) ** 2).sum())
        for book in (product.vector_codebook(x, 4, 0), product.scalar_codebook(x, 4))
    ]
    assert loss[0] < loss[1]


@given(st.integers(1, 100), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_blocks_come_back_as_they_went_in(n, count):
    codes = np.random.default_rng(n).integers(0, 256, (n, count)).astype(np.uint8)
    assert (product.from_blocks(product.into_blocks(codes), n) == codes).all()


def test_a_scan_keeps_the_best_and_of_equal_scores_the_lower_row():
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (203, 3)).astype(np.uint8)
    table = random.integers(-3, 4, (3, 256)).astype(np.float32)  # many ties, exact sums
    names = random.permutation(203)
    score = table[0][codes[:, 0]] + table[1][codes[:, 1]] + table[2][codes[:, 2]]
    starts, cells = np.array([0, 50, 50, 203]), np.array([2, 0, 1])
    centre = np.array([1.0, 0.0, 0.0], np.float32)
    best, rows = np.full(20, -np.inf, np.float32), np.zeros(20, np.int64)
    ones, zeros = np.ones(203, np.float32), np.zeros(203, np.float32)
    loops.scan_cells(product.into_blocks(codes), table, cells, starts, ones, zeros, centre, names, best, rows)
    total = score + np.where(np.arange(203) < 50, 1, 0)
    order = np.lexsort((names, -total))[:20]
    assert rows[::-1].tolist() == names[order].tolist()
    assert best[::-1].tolist() == total[order].tolist()


@pytest.mark.parametrize("bits", [4, 8])
def test_adaptive_grids_err_by_half_a_step_at_most_and_a_second_level_by_far_less(bits):
    x = np.random.default_rng(bits).normal(size=(200, 31)).astype(np.float32) * 7
    x[3] = 2.5  # a constant vector
    code = locally_adaptive.encode(x, bits)
    step = code.step.astype(np.float32)[:, None]
    error = np.abs(locally_adaptive.decode(code) - x)
    assert (error <= 0.5 * step + 4e-3 * np.abs(x).max(1, keepdims=True) * (step == 0) + 1e-5).all()
    finer = np.abs(locally_adaptive.decode_residual(code, locally_adaptive.encode_residual(x, code)) - x)
    assert finer.max() <= step.max() / 400
    if bits == 4:
        packed = locally_adaptive.pack_halves(code.codes)
        assert packed.shape == (200, 16)
        assert (locally_adaptive.unpack_halves(packed, 31) == code.codes).all()


def test_plain_product_quantization_has_runs_of_coordinates_as_they_come():
    book = product.plain_codebook(cloud(400, 10), 4, 0)
    assert book.groups.order.tolist() == list(range(10))
    assert book.groups.start.tolist() == [0, 2, 5, 7, 10]
