"""The factors a quantizer works with: true inverses, and what the feedback built on them buys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.importance import metric
from bntools.core.importance.fisher_sweep import HeadMoments, Sensitivity
from bntools.kernels.entropy import dependent_trellis


def moments(size: int, seed: int = 0, spread: float = 0.3) -> torch.Tensor:
    """Second moments of correlated inputs of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, size, generator=generator) @ torch.randn(size, size, generator=generator)
    return (x * torch.exp(spread * torch.randn(size, generator=generator))).T.cov() + 0.1 * torch.eye(size)


def sensitivity(inputs: torch.Tensor, outputs: torch.Tensor, whole: bool = True) -> Sensitivity:
    rows = outputs.diagonal().clone()
    return Sensitivity(rows, inputs, outputs if whole else None)


def test_the_factor_squares_to_the_inverse_and_is_upper():
    m = moments(40)
    factor, damping = metric.damped_factor(m, 0.02)
    damped = m + 0.02 * m.diagonal().mean() * torch.eye(40)
    assert damping == 0.02
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(40), atol=1e-3)


@pytest.mark.parametrize("is_trellis", [False, True])
def test_feedback_loses_less_than_plain_rounding_at_equal_steps(is_trellis):
    """tr(A E B E^T), over inputs alone and over inputs and outputs."""
    inputs, outputs = moments(48), moments(32, 1)
    w = torch.randn(32, 48, generator=torch.Generator().manual_seed(2))
    lost = []
    for feeds in ("none", "inputs", "both"):
        found = metric.of_linear(sensitivity(inputs, outputs, whole=feeds == "both"))
        factor = np.diag(found.factor.diagonal()) if feeds == "none" else found.factor
        both = metric.of_linear(sensitivity(inputs, outputs))
        e = errors(w, found, factor, both.row, is_trellis)
        lost.append(float(((outputs @ e) * (e @ inputs)).sum()))
    assert lost[1] < 0.7 * lost[0]
    assert lost[2] < 0.8 * lost[1]


def errors(w, found, factor, row, is_trellis) -> torch.Tensor:
    """W minus its rounding, at steps of a tenth of row_i U_jj in every case."""
    order = torch.from_numpy(found.order)
    targets = w.T[order].contiguous().numpy()
    levels, col = np.empty(targets.shape, np.int16), 0.3 * found.col
    dependent_trellis.columns(
        targets.copy(), np.ascontiguousarray(factor), row, col, np.ones_like(targets), found.weight,
        found.feedback, is_trellis, levels,
    )  # fmt: skip
    values = dependent_trellis.multiples(levels, is_trellis) * row * col[:, None]
    return torch.from_numpy(targets - values)[order.argsort()].T


def test_an_input_that_is_always_0_costs_no_failure_and_is_coded_last():
    m = moments(20)
    m[3], m[:, 3] = 0, 0
    factor, damping = metric.damped_factor(m, metric.INPUT_DAMPING)
    assert damping == metric.INPUT_DAMPING
    assert torch.isfinite(factor).all()
    found = metric.of_linear(sensitivity(m, moments(8, 1)))
    assert found.order[-1] == 3
    assert (found.col > 0).all()
    nothing = metric.of_linear(sensitivity(torch.zeros(20, 20), torch.zeros(8, 8)))
    for values in (nothing.col, nothing.row, nothing.weight):
        assert np.isfinite(values).all()
        assert (values > 0).all()


def test_moments_that_are_singular_are_damped_until_they_factor():
    x = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    factor, damping = metric.damped_factor(x.T @ x, 1e-18)
    assert damping > 1e-18
    assert torch.isfinite(factor).all()


def test_moments_that_are_not_finite_are_refused():
    m = moments(8)
    m[2, 5] = m[5, 2] = float("nan")
    with pytest.raises(BnError) as caught:
        metric.of_linear(sensitivity(m, moments(4, 1)))
    assert caught.value.code == BAD_INPUT
    with pytest.raises(BnError):
        metric.damped_factor(m, 0.02)


def test_a_row_the_loss_minds_more_gets_smaller_steps():
    outputs = torch.diag(torch.tensor([1.0, 4.0, 100.0]))
    for whole in (False, True):
        row = metric.of_linear(sensitivity(moments(8), outputs, whole)).row
        assert row[0] > row[1] > row[2]


def test_tokens_of_a_tied_embedding_weigh_by_what_they_do_at_both_ends():
    head = HeadMoments(moments(6), torch.tensor([0.2, 0.0, 0.0, 0.1]))
    counts, first, shape = torch.tensor([0, 9, 0, 0]), moments(6, 1), (4, 6)
    as_head = metric.of_embedding(head, first, counts, used=(True, False), shape=shape).row
    as_input = metric.of_embedding(head, first, counts, used=(False, True), shape=shape).row
    tied = metric.of_embedding(head, first, counts, used=(True, True), shape=shape).row
    assert as_head[0] < as_head[3] < as_head[1] == as_head[2]
    assert as_input[1] < as_input[0] == as_input[2] == as_input[3]
    assert max(tied[:2]) < tied[2]
    assert np.isfinite(tied).all()


def test_a_matrix_of_more_rows_or_of_another_width_than_the_blocks():
    head = HeadMoments(moments(6), torch.tensor([0.2, 0.0, 0.0, 0.1]))
    counts, first = torch.tensor([0, 9, 0, 0]), moments(8, 1)
    more = metric.of_embedding(head, first, counts, used=(False, True), shape=(7, 8))
    assert more.rows.shape == (7,)
    assert (more.rows[4:] == more.rows[0]).all()
    alone = metric.of_embedding(head, first, counts, used=(True, False), shape=(4, 6))
    assert alone.rows.shape == (4,)
    with pytest.raises(BnError, match="projected"):
        metric.of_embedding(head, first, counts, used=(True, True), shape=(4, 6))
