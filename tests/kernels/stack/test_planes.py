"""Levels with a price and one-bit planes: equal to the loops that define them, and never worse after a descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import slow_planes as slow

from bntools.kernels.entropy import unbounded_levels
from bntools.kernels.stack import planes

SHAPES = [(1, 1), (5, 3), (9, 70), (30, 131)]  # out, in: below, above and across the lazy blocks


def problem(out, inner, seed=0):
    """W^T [in, out], H, its factor, steps."""
    torch.manual_seed(seed)
    x = torch.randn(3 * inner + 4, inner) @ torch.randn(inner, inner) / inner**0.5
    hessian = x.T @ x / len(x) + 0.05 * torch.eye(inner)
    lower = torch.linalg.cholesky(torch.linalg.inv(hessian.double()))
    factor = lower.T.float().contiguous()
    steps = (0.7 * factor.diagonal()).numpy().copy()
    return torch.randn(inner, out), hessian, factor, steps


def loss(error, hessian):
    return torch.einsum("ij,ik,kj->j", error.double(), hessian.double(), error.double())


@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_signs_are_those_of_the_plain_loop(out, inner):
    w, hessian, factor, steps = problem(out, inner)
    half = steps / 4
    signs = planes.feedback(w, factor, half)
    for row in range(out):
        expected = slow.feedback(w[:, row].numpy(), factor.numpy(), slow.sign(half))
        assert np.array_equal(signs[:, row] * half, np.float32(expected))
    gradient = hessian @ (torch.from_numpy(signs * half[:, None]) - w)
    before = signs.copy()
    planes.descend(signs, gradient, hessian, half)
    for row in range(out):
        expected = slow.descend(before[:, row] * half, w[:, row].numpy(), hessian.numpy(), slow.sign(half))
        assert np.allclose(signs[:, row] * half, expected, atol=1e-6)
    assert torch.allclose(gradient, hessian @ (torch.from_numpy(signs * half[:, None]) - w), atol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_levels_are_those_of_the_plain_loop(out, inner, weight):
    w, hessian, factor, steps = problem(out, inner)
    row_class, col_class = np.arange(out, dtype=np.int16) % 30, np.arange(inner, dtype=np.int16) % 12
    price = unbounded_levels.prices(weight, 24, 4)
    levels = unbounded_levels.feedback(w, factor, steps, row_class, col_class, price)
    before, scale = levels.copy(), 0.49
    gradient = hessian @ (torch.from_numpy(levels * steps[:, None]) - w)
    unbounded_levels.descend(levels, gradient, hessian, steps, scale, row_class, col_class, price)
    curved = hessian.diagonal().numpy() * steps**2 / scale
    for row in range(out):
        own = price[np.clip(row_class[row] + col_class, 0, 63)]
        choose = slow.level(steps, own, np.ones(inner))
        expected = slow.feedback(w[:, row].numpy(), factor.numpy(), choose)
        assert np.allclose(before[:, row] * steps, expected, atol=1e-5)
        choose = slow.level(steps, own, curved)
        expected = slow.descend(before[:, row] * steps, w[:, row].numpy(), hessian.numpy(), choose)
        assert np.allclose(levels[:, row] * steps, expected, atol=1e-5)


def test_a_descent_never_raises_the_loss_of_a_row():
    w, hessian, factor, steps = problem(40, 90, seed=3)
    half = steps / 2
    signs = planes.feedback(w, factor, half)
    gradient = hessian @ (torch.from_numpy(signs * half[:, None]) - w)
    before = loss(torch.from_numpy(signs * half[:, None]) - w, hessian)
    for _ in range(3):
        planes.descend(signs, gradient, hessian, half)
        after = loss(torch.from_numpy(signs * half[:, None]) - w, hessian)
        assert bool((after <= before * (1 + 1e-6)).all())
        before = after


def test_a_priced_descent_never_raises_loss_and_price_together():
    w, hessian, factor, steps = problem(40, 90, seed=4)
    row_class, col_class = np.full(40, 20, np.int16), np.zeros(90, np.int16)
    price, scale = unbounded_levels.prices(1.0, 24, 4), 0.49
    levels = unbounded_levels.feedback(w, factor, steps, row_class, col_class, price)
    gradient = hessian @ (torch.from_numpy(levels * steps[:, None]) - w)

    def total():
        error = torch.from_numpy(levels * steps[:, None]) - w
        return loss(error, hessian).numpy() / scale + price[20, np.minimum(abs(levels), 127)].sum(
            0, dtype=np.float64
        )

    before = total()
    for _ in range(2):
        unbounded_levels.descend(levels, gradient, hessian, steps, scale, row_class, col_class, price)
        after = total()
        assert (after <= before * (1 + 1e-5)).all()
        before = after


def test_prices_are_the_code_lengths_of_a_laplace_law_of_the_class():
    price = unbounded_levels.prices(6 / np.log(2), 24, 4)  # in bits
    chance = 2.0 ** -price.astype(np.float64)
    for k, mean in ((16, 0.25), (24, 1.0), (32, 4.0)):
        total = chance[k, 0] + 2 * chance[k, 1:].sum()
        assert total == pytest.approx(1, abs=1e-5)
        beyond = np.exp(-(np.arange(1, 128) - 0.5) / mean)  # of weights that round to a level or farther
        assert 2 * np.cumsum(chance[k, :0:-1])[::-1] == pytest.approx(beyond, rel=1e-3, abs=1e-6)
    assert not unbounded_levels.prices(0.0, 24, 4).any()
