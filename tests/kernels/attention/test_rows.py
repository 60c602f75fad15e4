"""Packed rows, levels and attention over packed rows, each beside the plain loop that defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.attention import attend_cpu, gaussian_levels, levels, packed_rows
from bntools.kernels.entropy import rans


def slow_pack(codes: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """A token's codes as one stream of bits, the lowest first, filled up to a whole byte."""
    rows = []
    for row in codes:
        bits = [
            int(code) >> place & 1 for code, width in zip(row, widths, strict=True) for place in range(width)
        ]
        bits += [0] * (-len(bits) % 8)
        rows.append(
            [
                sum(bit << place for place, bit in enumerate(bits[at : at + 8]))
                for at in range(0, len(bits), 8)
            ]
        )
    return np.array(rows, np.uint8).reshape(len(codes), -1)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(1, 5), st.integers(0, 9999))
def test_packed_rows_are_the_stream_of_bits_and_come_back(widths, tokens, seed):
    width = np.array(widths, np.uint8)
    codes = (
        np.random.default_rng(seed)
        .integers(0, 1 << width[None].astype(int), (tokens, len(width)))
        .astype(np.uint8)
    )
    packed = packed_rows.pack(codes, width)
    assert np.array_equal(packed, slow_pack(codes, width))
    assert np.array_equal(packed_rows.unpack(packed, width), codes)


@pytest.mark.parametrize("groups", [1, 3])
def test_attention_over_packed_rows_is_attention_over_the_unpacked_ones(groups):
    rng = np.random.default_rng(1)
    half, tokens = 16, 70
    widths = rng.integers(0, 5, 2 * half).astype(np.uint8)
    codes = rng.integers(0, 1 << widths[None].astype(int), (tokens, 2 * half)).astype(np.uint8)
    values = rng.normal(size=(2 * half, 64)).astype(np.float32)
    query, mean = (
        rng.normal(size=(groups, half)).astype(np.float32),
        rng.normal(size=groups).astype(np.float32),
    )
    dense = values[np.arange(2 * half)[None], codes]
    dense[:, widths == 0] = 0
    values[widths == 0] = 0
    logits = query @ dense[:, :half].T + mean[:, None]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    expected = chances / chances.sum(1, keepdims=True) @ dense[:, half:]
    found = attend_cpu.attend(query, packed_rows.pack(codes, widths), widths, values, mean)
    assert np.allclose(found, expected, atol=1e-5)


def test_levels_are_the_cheapest_of_the_three_offered():
    rng = np.random.default_rng(2)
    y = rng.laplace(size=(20, 8)).astype(np.float32) * 3
    steps = np.array([[0.5, 2.0]] * 20, np.float32)
    rows, columns = rng.integers(20, 40, 8).astype(np.int16), rng.integers(-8, 8, 20).astype(np.int16)
    price = np.sort(rng.random((64, 129)).astype(np.float32), axis=1)
    chosen = np.empty(y.shape, np.int16)
    levels.choose(y, steps, rows, columns, price, chosen)
    for t, c in np.ndindex(y.shape):
        x = abs(y[t, c] / steps[t, c // 4])
        table = price[min(max(int(rows[c]) + int(columns[t]), 0), 63)]
        near = int(np.rint(x))
        offered = [(x - q) ** 2 + table[min(q, 128)] for q in {near, max(near - 1, 0), 0}]
        q = abs(int(chosen[t, c]))
        assert (x - q) ** 2 + table[min(q, 128)] <= min(offered) + 1e-5
        assert chosen[t, c] == 0 or np.sign(chosen[t, c]) == np.sign(y[t, c])


def test_lloyd_max_has_the_known_errors_of_a_gaussian():
    """Max 1960, table I: mean squared errors of 2, 4 and 8 levels."""
    for bits, error in ((1, 0.3634), (2, 0.1175), (3, 0.03454)):
        assert gaussian_levels.gaussian(bits)[1] == pytest.approx(error, rel=5e-3)


def test_a_level_that_its_table_does_not_know_is_escaped():
    counts = np.zeros((64, rans.SYMBOLS), np.int64)
    counts[:, rans.LIMIT - 1 : rans.LIMIT + 2] = 10
    packed = rans.cumulative(rans.normalize(counts))
    symbols = rans.slots(rans.normalize(counts))
    sent = np.array([[0, 1, -1, 60, -127, 900, -30000, 0]], np.int16)
    words = rans.encode_lane(sent, np.zeros(sent.shape, np.uint8), packed)
    back = np.empty(sent.shape, np.int16)
    rows = np.zeros(8, np.int16)
    assert rans.decode_lane(
        words, rows, np.zeros(1, np.int16), 1, packed, symbols, np.zeros((1, 3), np.int64), back
    )
    assert np.array_equal(back, sent)


def test_a_gain_makes_a_mean_of_many_tokens_truer_than_the_centre_of_a_cell_does():
    """What a mean of n tokens loses: of values that share an offset, rounded at a coarse step."""
    rng = np.random.default_rng(3)
    n, groups = 16, 4000
    y = rng.normal(size=(groups, 1)) * 0.5 + rng.normal(size=(groups, n))
    step = 2.5
    q = np.sign(y) * np.floor(np.abs(y) / step + 0.35)
    centre = np.abs(y[np.abs(q) == 1]).mean()
    back = np.where(np.abs(q) == 1, np.sign(q) * centre, q * step)
    sums = np.zeros((64, 2, 3))
    sums[:, :] = [(y * y).sum(), (y * back).sum(), (back * back).sum()]
    alone, many = levels.gains(sums, (1.0, float(n)))[30]
    assert alone == pytest.approx(1, abs=0.05)
    error = [np.mean((g * back.mean(1) - y.mean(1)) ** 2) for g in (1.0, many)]
    assert many > 1.1
    assert error[1] < error[0]
