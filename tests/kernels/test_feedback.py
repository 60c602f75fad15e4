"""Compiled column loops against plain ones, and what coordinate descent promises."""

from __future__ import annotations

import pytest
import torch

from bntools.kernels.feedback import LAZY, Levels, descend, feedback, nearest


def problem(outs=30, inputs=LAZY + 37, group=16, bits=3, memory=0, seed=0):
    """W [in, out], H, U and levels on which its values lie mostly inside."""
    torch.manual_seed(seed)
    x = torch.randn(4 * inputs, inputs) @ torch.randn(inputs, inputs)
    h = x.T @ x / len(x)
    h.diagonal().add_(0.01 * h.diagonal().mean())
    upper = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    groups = -(-inputs // group)
    scales = 0.5 + torch.rand(groups, outs)
    zeros = torch.full_like(scales, (2**bits - 1) / 2) + torch.randint(-2, 3, scales.shape) / 2
    return (
        torch.randn(inputs, outs),
        h,
        upper,
        Levels(scales, zeros, torch.arange(inputs) // group, bits, memory),
    )


def reference(w, upper, levels):
    """GPTQ as its algorithm 1 has it, one column at a time."""
    w, codes = w.clone(), torch.empty_like(w)
    for j in range(len(w)):
        s, z = levels.scales[levels.group[j]], levels.zeros[levels.group[j]]
        codes[j] = (w[j] / s + z).round().clamp(0, 2**levels.bits - 1)
        value = (codes[j] - z) * s
        w[j + 1 :] -= upper[j, j + 1 :, None] * ((w[j] - value) / upper[j, j])
        w[j] = value
    return codes, w


def loss(values, w, h):
    e = (values - w).double()
    return float((e * (h.double() @ e)).sum())


@pytest.mark.parametrize("bits", [2, 4])
def test_the_fast_loop_is_the_plain_one(bits):
    w, h, upper, levels = problem(bits=bits)
    codes, values = feedback(w, upper, levels)
    expected, dense = reference(w, upper, levels)
    # A value between two levels may fall either way in single precision, and what follows with it.
    assert float((codes.float() != expected).float().mean()) < 0.02
    assert loss(values, w, h) == pytest.approx(loss(dense, w, h), rel=0.02)


@pytest.mark.parametrize("memory", [0, 3])
def test_threads_do_not_change_a_byte(memory):
    w, _, upper, levels = problem(outs=600, memory=memory)
    one, three = (feedback(w, upper, levels, threads) for threads in (1, 3))
    assert torch.equal(one[0], three[0])
    assert torch.equal(one[1], three[1])


@pytest.mark.parametrize("memory", [0, 3])
def test_feedback_without_correlation_is_rounding(memory):
    w, _, _, levels = problem(memory=memory)
    found, alone = feedback(w, torch.eye(len(w)), levels), nearest(w, levels)
    assert torch.equal(found[0], alone[0])
    assert torch.equal(found[1], alone[1])


@pytest.mark.parametrize("memory", [0, 2, 5])
@pytest.mark.parametrize("start", ["feedback", "nearest"])
def test_coordinate_descent_never_makes_the_output_worse(memory, start):
    w, h, upper, levels = problem(memory=memory, outs=40)
    codes, values = feedback(w, upper, levels) if start == "feedback" else nearest(w, levels)
    gradient = h @ (values - w)
    before = loss(values, w, h)
    first = before
    for _ in range(4):
        descend(values, gradient, h, codes, levels)
        after = loss(values, w, h)
        assert after <= before * (1 + 1e-5)
        before = after
    assert before < first
    torch.testing.assert_close(gradient, h @ (values - w), rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))
