"""Compiled column loops against plain ones, and what coordinate descent promises."""

from __future__ import annotations

import pytest
import torch

from bntools.kernels.rounding.feedback import LAZY, ColumnLevels, descend, feedback, nearest


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
        ColumnLevels(scales, zeros, torch.arange(inputs) // group, bits, memory),
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


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("width", "threads"), [(8, 1), (48, 2), (300, 1)])
def test_columns_with_grids_of_their_own_are_what_the_slow_loop_gives(width, threads, symmetric):
    """In the slow loop, torch takes the grids column by column, and the whole rest of W is updated each time."""
    from bntools.kernels.rounding import column_grids
    from bntools.tools.quantize.fixed import grids

    torch.manual_seed(0)
    w = torch.randn(70, 300) * torch.logspace(-7, 3, 70)[:, None]  # scales beyond float16 at both ends
    factor = torch.eye(70) + 0.2 * torch.randn(70, 70).triu(1)
    codes, scales, zeros, values = column_grids.feedback(w, factor, width, 3, symmetric, threads)
    rest, group = w.clone(), torch.arange(300) // width
    for j in range(70):
        s, z = grids.minmax(*grids.limits(rest[j][None], width), 3, symmetric)
        s, z = s.float()[0], z[0]
        torch.testing.assert_close(scales[j], s, rtol=1e-3, atol=0)
        value = ((rest[j] / s[group]).round().add(z[group]).clamp(0, 7) - z[group]) * s[group]
        # Halves may fall a step off; near the ends of float16 one of both may have the digits of float32.
        # Symmetric, the largest weight of a group is a half.
        off = (values[j] - value).abs() / s[group]
        assert float(off.max()) < 1.01
        assert float((off > 1e-2).float().mean()) < (0.13 if symmetric else 0.02)
        rest[j + 1 :] -= factor[j, j + 1 :, None] * ((rest[j] - values[j]) / factor[j, j])
    back = (codes.float() - zeros[:, group]) * scales[:, group]
    assert torch.equal(back, values)
    assert codes.max() <= 7
    kept = grids.stored(scales)
    assert torch.equal(kept.float(), scales), "what is stored are the scales that were used"


def test_scales_are_rounded_to_float16_as_torch_rounds_them():
    from bntools.kernels.rounding.column_grids import _half

    values = torch.cat(
        [torch.logspace(-9, 5, 3000), torch.tensor([65504.0, 65519.9, 2.0**-14, 2.0**-24, 2049.0])]
    )
    assert torch.equal(torch.tensor([_half(x) for x in values.numpy()]), values.half().float())
