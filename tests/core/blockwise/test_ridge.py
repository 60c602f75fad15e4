"""The ridge that suits the other half."""

from __future__ import annotations

import pytest
import torch

from bntools.core.blockwise import ridge
from bntools.core.blockwise.ridge import RIDGES, Regression
from bntools.core.blockwise.second_moments import _add


def regressed(x, y, halves=(0, 1), root=None):
    found = Regression(x.shape[1], y.shape[1])
    for half, a, b in zip(halves, x.chunk(len(halves)), y.chunk(len(halves)), strict=True):
        _add(found.tasks(half, a, b))
    return found.solve(root)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_there_is_found_and_noise_is_left():
    x, s = noise(4000, 8, seed=0), noise(5, 8, seed=1)
    solved, moments = regressed(x, x @ s.T)
    assert torch.allclose(solved, s, rtol=0.03, atol=0.02)
    assert torch.allclose(moments, x.T @ x / len(x), atol=1e-5)
    nothing, _ = regressed(noise(40, 30, seed=2), noise(40, 5, seed=3))
    assert not nothing.any()


def test_the_more_noise_the_smaller_the_fit():
    x, s = noise(400, 50, seed=0), noise(5, 50, seed=1)
    sizes = [
        float(regressed(x, x @ s.T + 0.1 * loud * noise(400, 5, seed=2))[0].norm() / s.norm())
        for loud in (1, 100, 400)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_metric_says_which_outputs_count():
    """One output is all noise and the other none: alone, each has its own ridge."""
    x = noise(60, 40, seed=0)
    y = torch.stack([x @ noise(40, seed=1), 30 * noise(60, seed=2)], 1)
    first, second = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    assert not regressed(x, y, root=second)[0].any()
    assert regressed(x, y, root=first)[0].any()


def test_with_one_half_the_largest_ridge_is_taken():
    x, s = noise(100, 4, seed=0), noise(3, 4, seed=1)
    solved, moments = regressed(x, x @ s.T, halves=(0,))
    xx = x.T @ x / len(x)
    expected = (s @ xx) @ torch.linalg.inv(xx + RIDGES[-1] * xx.diagonal().mean() * torch.eye(4))
    assert torch.allclose(solved, expected, atol=1e-5)
    assert torch.allclose(moments, xx, atol=1e-5)


@pytest.mark.parametrize("loud", [0.1, 1, 5])
def test_random_sums_of_many_outputs_choose_as_all_of_them_do(loud, monkeypatch):
    x, s = noise(300, 100, seed=0), noise(400, 100, seed=1)
    y = x @ s.T + 10 * loud * noise(300, 400, seed=2)
    probed, _ = regressed(x, y)
    monkeypatch.setattr(ridge, "_PROBES", 400)
    every, _ = regressed(x, y)
    assert float((probed - s).norm()) <= 1.02 * float((every - s).norm())
    assert every.any()


def test_factors_in_bfloat16_are_near_enough():
    x, s = noise(4000, 60, seed=0), noise(50, 60, seed=1)
    found = Regression(60, 50, mixed=True)
    for half in (0, 1):
        _add(found.tasks(half, x, x @ s.T))
    assert float((found.solve()[0] - regressed(x, x @ s.T)[0]).norm() / s.norm()) < 5e-3
