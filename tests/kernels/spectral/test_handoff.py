"""The cosine basis and the hand-off between resolutions, against loops and definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.spectral.cosine import band, dct2, idct2, ratio, spread
from bntools.kernels.spectral.handoff import (
    Spectrum,
    block_noise,
    cleaner,
    noise_above,
    noisier,
    to_high,
    to_low,
)


def slow_dct(x: torch.Tensor) -> torch.Tensor:
    """The definition, one coefficient at a time."""
    n = len(x)
    c = torch.zeros(n, dtype=torch.float64)
    for k in range(n):
        for i in range(n):
            c[k] += x[i] * math.cos(math.pi * k * (2 * i + 1) / (2 * n))
        c[k] *= math.sqrt((1 if k == 0 else 2) / n)
    return c


def test_the_transform_is_the_definition_along_both_axes():
    x = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([slow_dct(row) for row in x])
    both = torch.stack([slow_dct(column) for column in rows.T]).T
    assert torch.allclose(dct2(x), both, atol=1e-12)
    assert torch.allclose(idct2(both), x, atol=1e-12)


SIDES = st.integers(1, 33)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.integers(0, 99))
def test_down_and_up_again_is_the_identity_for_any_sizes(height, width, share_h, share_w, t, seed):
    low = max(1, round(height * share_h)), max(1, round(width * share_w))
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    small, level, waiting = to_low(x, t, low)
    assert tuple(small.shape[-2:]) == low
    again, t_again = to_high(small, level, waiting)
    assert t_again == pytest.approx(t, abs=1e-12)
    assert (again - x).abs().max() <= 1e-6 * max(1.0, float(x.abs().max()))
    spectrum = Spectrum(torch.zeros(1, height, width), torch.ones(1, height, width))
    assert torch.allclose(to_high(small, level, waiting, spectrum)[0], again, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 1), st.floats(1, 8))
def test_levels_go_there_and_back_and_keep_signal_and_noise(t_low, rho):
    t = noisier(t_low, rho)
    assert cleaner(t, rho) == pytest.approx(t_low)
    kappa = t / t_low
    assert kappa == pytest.approx(rho / (1 + (rho - 1) * t_low))
    assert (1 - t_low) * kappa / rho == pytest.approx(1 - t, abs=1e-12)


def test_a_field_of_signal_and_noise_is_one_of_the_new_level_at_the_low_resolution():
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(1, 12, 10, generator=generator), torch.randn(1, 12, 10, generator=generator)
    t, size = 0.7, (6, 5)
    low, level, _ = to_low((1 - t) * x0 + t * noise, t, size)
    rho = ratio((12, 10), size)
    expected = (1 - level) * band(x0, size) / rho + level * band(noise, size)
    assert torch.allclose(low.double(), expected, atol=1e-6)


def test_a_constant_keeps_its_value_at_the_low_resolution():
    flat = torch.full((1, 9, 9), 0.4)
    low = band(flat, (4, 5)) / ratio((9, 9), (4, 5))
    assert torch.allclose(low, torch.full((1, 4, 5), 0.4, dtype=torch.float64))


def test_band_and_the_rest_make_the_field():
    x = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(spread(band(x, (3, 4)), (8, 8)) + noise_above(x, (3, 4)), x.double(), atol=1e-12)
    with pytest.raises(ValueError, match="no band"):
        band(x, (9, 8))


@pytest.mark.parametrize("c", [0.0, 0.1, 0.25])
def test_block_noise_has_the_covariance_that_repeated_noise_lacks(c):
    """Unit vectors through the linear map give its matrix; its Gram matrix is the covariance."""
    unit = torch.eye(16, dtype=torch.float64).reshape(16, 4, 4)
    root = block_noise(unit, (2, 2), c).reshape(16, 16)
    blocks = torch.zeros(16, 16, dtype=torch.float64)
    for a in range(16):
        for b in range(16):
            blocks[a, b] = (a // 8 == b // 8) and (a % 4 // 2 == b % 4 // 2)
    assert torch.allclose(root.T @ root, torch.eye(16, dtype=torch.float64) - c * blocks, atol=1e-12)
    with pytest.raises(ValueError, match="not in"):
        block_noise(unit, (2, 2), 0.3)
