"""Spectral codes: exact where the budget allows, never over it, and right about planted ranks."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.kernels.embedding import spectral


def zipf(n):
    return 1e4 / np.arange(1, n + 1)


def compressed(E, f, share, bits=32, metric=None):
    one, cost = spectral.spectrum(E, f, metric), spectral.price(bits, E.shape[1])
    lengths = spectral.allocate([one], [cost], share * E.size * bits)
    return None if lengths is None else (spectral.decode(one, lengths[0]), lengths[0], cost)


def test_the_whole_budget_reproduces_the_table():
    E = np.random.default_rng(0).standard_normal((400, 8))
    decoded, lengths, _ = compressed(E, zipf(400), 1.5)
    assert (lengths == 8).all()
    np.testing.assert_allclose(decoded, E, atol=1e-10)


def test_a_table_of_rank_two_survives_at_two_sixteenths_and_its_axes():
    rng = np.random.default_rng(1)
    E = rng.standard_normal((2000, 2)) @ rng.standard_normal((2, 16)) + rng.standard_normal(16)
    decoded, lengths, _ = compressed(E, zipf(2000), 2 / 16 + 0.01)
    assert lengths.max() == 2
    assert np.abs(decoded - E).max() < 1e-6


def test_lengths_follow_planted_ranks():
    rng = np.random.default_rng(2)
    ranks = np.repeat([4, 2, 0], 200)
    C = rng.choice([-1, 1], (600, 4)) * (1 + rng.random((600, 4))) * (np.arange(4) < ranks[:, None])
    C *= np.array([8, 4, 2, 1])
    E = C @ np.linalg.qr(rng.standard_normal((12, 12)))[0][:4]
    one = spectral.spectrum(E - E.mean(0), np.ones(600))
    lengths = spectral.lengths_at([one], [spectral.price(32, 12)], 0.5 / 32)[0]
    share = [(lengths[ranks == r] == r).mean() for r in (4, 2)]
    assert min(share) > 0.9
    assert lengths[ranks == 0].max() <= 4


def test_the_error_never_grows_with_the_budget_and_bits_never_exceed_it():
    rng = np.random.default_rng(3)
    E, f = rng.standard_normal((500, 8)) * np.geomspace(1, 0.05, 8), zipf(500)
    last = np.inf
    for share in (0.05, 0.1, 0.2, 0.4, 0.8, 1.2):
        decoded, lengths, cost = compressed(E, f, share)
        assert spectral.bits_of([lengths], [cost]) <= share * E.size * 32
        error = float((f[:, None] * np.square(decoded - E)).sum())
        assert error <= last
        last = error


def test_directions_that_the_loss_does_not_mind_are_dropped_first():
    """With a metric that sees one direction only, one number a row is enough, whatever the others' size."""
    rng = np.random.default_rng(4)
    E = rng.standard_normal((800, 6)) * np.array([1, 10, 10, 10, 10, 10])
    metric = np.diag([1.0, 0, 0, 0, 0, 0])
    decoded, _, _ = compressed(E, np.ones(800), 0.22, metric=metric)
    blind, _, _ = compressed(E, np.ones(800), 0.22)
    assert np.square(decoded - E)[:, 0].mean() < 0.05
    assert np.square(blind - E)[:, 0].mean() > 0.5


def test_a_budget_under_the_means_is_refused():
    assert compressed(np.ones((10, 8)), np.ones(10), 0.01) is None


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_codes_are_within_half_a_step_where_nothing_is_clipped(bits):
    values = np.random.default_rng(5).random(300)
    codes, offset, step = spectral.quantize(values, np.ones(300), bits)
    back = float(offset) + codes * float(step)
    share = (np.abs(back - values) <= float(step) * 0.51 + 1e-3).mean()
    assert codes.max() < 1 << bits
    assert share > 0.9
