"""Ways to a few coordinates: what each keeps of a layer, and the bound on what it loses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bntools.tools.ib_analyze import compress


def layer(seed=0, n=400, d=12):
    rng = np.random.default_rng(seed)
    h = rng.standard_normal((n, d)) * np.linspace(3, 0.1, d) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    return h - h.mean(0)


def variances(h):
    return np.linalg.eigvalsh(np.cov(h.T, bias=True))[::-1]


def test_the_loss_of_random_axes_is_the_information_of_a_normal_rest():
    """By the chain rule: log determinants of the whole and of the kept, on covariances formed here."""
    h, sigma = layer(), 0.3
    code = compress.RandomAxes(h, variances(h), 4, np.random.default_rng(5))
    axes = np.linalg.qr(np.random.default_rng(5).standard_normal((12, 4)))[0]
    np.testing.assert_allclose(code.coordinates, h @ axes)
    every = np.linalg.slogdet(np.eye(12) + np.cov(h.T, bias=True) / sigma**2)[1]
    kept = np.linalg.slogdet(np.eye(4) + np.cov((h @ axes).T, bias=True) / sigma**2)[1]
    assert code.loss(sigma) == pytest.approx((every - kept) / 2)
    whole = compress.RandomAxes(h, variances(h), 12, np.random.default_rng(5))
    assert whole.loss(sigma) == pytest.approx(0, abs=1e-9)


def test_principal_axes_lose_least_of_all_axes():
    h = layer()
    values, vectors = np.linalg.eigh(np.cov(h.T, bias=True))
    best = compress.Axes(h @ vectors[:, ::-1][:, :4], values[::-1], np.random.default_rng(0))
    for seed in range(5):
        other = compress.RandomAxes(h, variances(h), 4, np.random.default_rng(seed))
        assert best.loss(0.2) < other.loss(0.2)


@pytest.mark.parametrize("make", [
    lambda h, rng: compress.Axes(h[:, :4], variances(h), rng),
    lambda h, rng: compress.RandomAxes(h, variances(h), 4, rng),
])  # fmt: skip
def test_noise_is_white_and_the_same_for_every_size(make):
    h = layer(n=20000, d=6)
    code = make(h, np.random.default_rng(1))
    small, large = (code.noisy(sigma) - code.noisy(0.0) for sigma in (0.1, 0.4))
    np.testing.assert_allclose(4 * small, large, atol=1e-9)
    np.testing.assert_allclose(np.cov(large.T), 0.16 * np.eye(4), atol=0.16 * 5 * math.sqrt(2 / 20000))


@pytest.mark.slow
def test_a_network_finds_the_two_numbers_that_make_a_curved_sheet_where_axes_do_not(monkeypatch):
    """From the code back to both numbers by a smooth regression: nothing of them is lost."""
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, (1500, 2))
    h = np.sin(4 * u @ rng.standard_normal((2, 24)) + rng.uniform(0, 6, 24))
    code = compress.Encoded(h, 2, np.random.default_rng(3))
    again = compress.Encoded(h, 2, np.random.default_rng(3))
    assert (code.noisy(0.1) == again.noisy(0.1)).all()
    assert math.isnan(code.loss(0.1))
    axes = compress.RandomAxes(h, np.zeros(0), 2, np.random.default_rng(0)).coordinates

    def unexplained(points):
        """Of u by its mean over the eight nearest other rows."""
        points = (points - points.mean(0)) / points.std(0)
        order = np.argsort(((points[:, None] - points[None]) ** 2).sum(-1), 1)[:, 1:9]
        return ((u[order].mean(1) - u) ** 2).mean() / u.var()

    assert unexplained(code.noisy(0.0)) < 0.5 * unexplained(axes)
