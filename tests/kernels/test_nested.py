"""Levels and the bits under them chosen together: equal to the loop that defines it, and never worse for all depths."""

from __future__ import annotations

import numpy as np
import pytest
import slow_planes as slow
import torch

from bntools.kernels import nested, scalar

SHAPES = [(1, 1), (5, 3), (9, 70), (20, 131)]  # out, in: below, above and across the lazy blocks
WEIGHTS = np.array([1.0, 2.5, 7.0, 8.0], np.float32)
SCALE = 0.49


def problem(out, inner, planes, seed=0):
    """A target [in, out] for each depth, H, steps, levels and bits to begin with, classes, prices."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(3 * inner + 4, inner)) @ rng.normal(size=(inner, inner))).float()
    hessian = x.T @ x / len(x) / inner + 0.05 * torch.eye(inner)
    steps = (0.5 / hessian.diagonal().sqrt()).numpy()
    w = torch.from_numpy(rng.normal(size=(inner, out)).astype(np.float32))
    targets = [
        w + 0.05 * torch.from_numpy(rng.normal(size=w.shape).astype(np.float32)) for _ in range(planes + 1)
    ]
    levels = np.rint(w.numpy() / steps[:, None]).astype(np.int16)
    bits = rng.integers(0, 1 << planes, levels.shape).astype(np.int16)
    classes = rng.integers(10, 30, out).astype(np.int16), rng.integers(0, 12, inner).astype(np.int16)
    return targets, hessian, steps, levels, bits, classes, scalar.prices(0.5, 24, 4)


def errors(targets, steps, levels, bits):
    planes = len(targets) - 1
    return [
        torch.from_numpy(nested.multiples(levels, bits, planes, depth) * steps[:, None]) - target
        for depth, target in enumerate(targets)
    ]


def descend(targets, hessian, steps, levels, bits, classes, price):
    gradients = [hessian @ error for error in errors(targets, steps, levels, bits)]
    planes = len(targets) - 1
    nested.descend(
        levels, bits, planes, gradients, hessian, steps, WEIGHTS[: planes + 1], SCALE, *classes, price
    )
    return gradients


def total(targets, hessian, steps, levels, bits, classes, price):
    """Of every row: what a descent lowers."""
    kinds = np.clip(classes[0][None] + classes[1][:, None], 0, 63)
    found = SCALE * price[kinds, np.minimum(abs(levels), 127)].sum(0, dtype=np.float64)
    for weight, error in zip(WEIGHTS, errors(targets, steps, levels, bits), strict=False):
        e = error.double()
        found += float(weight) * torch.einsum("ij,ik,kj->j", e, hessian.double(), e).numpy()
    return found


@pytest.mark.parametrize("planes", [0, 1, 3])
@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_each_weight_is_moved_to_the_best_of_all_its_depths(out, inner, planes):
    targets, hessian, steps, levels, bits, classes, price = given = problem(out, inner, planes)
    before, before_bits = levels.copy(), bits.copy()
    gradients = descend(*given)
    for row in range(out):
        found = slow.together(
            before[:, row], before_bits[:, row], planes, [target[:, row].numpy() for target in targets],
            hessian.numpy(), steps, WEIGHTS, SCALE, price[np.clip(classes[0][row] + classes[1], 0, 63)],
        )  # fmt: skip
        assert np.array_equal(levels[:, row], found[0])
        assert np.array_equal(bits[:, row], found[1])
    for gradient, error in zip(gradients, errors(targets, steps, levels, bits), strict=True):
        assert torch.allclose(gradient, hessian @ error, atol=2e-4)


def test_a_descent_never_raises_what_all_depths_lose_together():
    given = problem(40, 90, 3, seed=3)
    before = total(*given)
    for _ in range(3):
        descend(*given)
        after = total(*given)
        assert (after <= before * (1 + 1e-5)).all()
        before = after


def test_a_weight_is_read_down_to_any_depth():
    levels, bits = np.array([[-2, 0, 3]], np.int16), np.array([[0b101, 0b000, 0b011]], np.int16)
    assert nested.multiples(levels, bits, 3, 0).tolist() == [[-2, 0, 3]]
    assert nested.multiples(levels, bits, 3, 1).tolist() == [[-1.75, -0.25, 2.75]]
    assert nested.multiples(levels, bits, 3, 3).tolist() == [
        [-2 + 0.25 - 0.125 + 0.0625, -0.25 - 0.125 - 0.0625, 3 - 0.25 + 0.125 + 0.0625]
    ]
