"""Divergences that networks are trained by: equal to plain loops, and right where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bntools.kernels.information import differentiable
from bntools.kernels.information.kernel_matrices import cauchy_schwarz_reference


def _batch(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)))


def _divergence_by_loops(x, y, predicted, *, widths, norm):
    """A(y, y), A(p, p) and A(y, p) term by term, as the paper writes them."""
    n, totals = len(x), []
    for a, b in ((y, y), (predicted, predicted), (y, predicted)):
        total = 0.0
        for j in range(n):
            k = [math.exp(-float((x[j] - x[i]).square().sum()) / (2 * widths[0] ** 2)) for i in range(n)]
            g = [math.exp(-float((a[j] - b[i]).square().sum()) / (2 * widths[1] ** 2)) for i in range(n)]
            below = sum(k) ** 2 if norm == "paper" else sum(one**2 for one in k)
            total += sum(one * other for one, other in zip(k, g, strict=True)) / below
        totals.append(math.log(total))
    return totals[0] + totals[1] - 2 * totals[2]


@pytest.mark.parametrize("norm", ["paper", "repo"])
def test_the_conditional_divergence_is_that_of_plain_loops(norm):
    x, y, predicted = _batch(17, 3), _batch(17, 1, 1), _batch(17, 1, 2)
    found = differentiable.conditional_divergence(x, y, predicted, widths=(1.3, 0.7), norm=norm)
    assert float(found) == pytest.approx(
        _divergence_by_loops(x, y, predicted, widths=(1.3, 0.7), norm=norm), rel=1e-9
    )


def test_a_perfect_prediction_has_no_divergence():
    x, y = _batch(40, 3), _batch(40, 1, 1)
    assert float(differentiable.conditional_divergence(x, y, y, widths=(1.0, 1.0))) == pytest.approx(
        0, abs=1e-12
    )


def test_without_information_in_x_the_divergence_is_that_of_two_normals():
    """E exp(-(a - b)^2 / 2 h^2) of a - b ~ N(m, 2 s^2) is known, and gives m^2 / (h^2 + 2 s^2)."""
    rows, shift = 2000, 1.0
    y, predicted = _batch(rows, 1), _batch(rows, 1, 1) + shift
    found = float(
        differentiable.conditional_divergence(torch.zeros(rows, 1), y, predicted, widths=(1.0, 1.0))
    )
    error = 2 * shift / 3 * math.sqrt(2 / rows)
    assert found == pytest.approx(shift**2 / 3, abs=4 * error)


def test_cauchy_schwarz_is_that_of_the_reference_and_one_of_a_copy():
    x, t = _batch(50, 3), _batch(50, 2, 1)
    k, q = differentiable.gaussian(x, x, 1.5), differentiable.gaussian(t, t, 0.8)
    expected = cauchy_schwarz_reference(x.numpy(), t.numpy(), (1.5, 0.8))
    assert float(differentiable.cauchy_schwarz(k, q)) == pytest.approx(expected, rel=1e-9)
    assert float(differentiable.normalized_cauchy_schwarz(x, x, (1.5, 1.5))) == pytest.approx(1)
    assert 0 <= float(differentiable.normalized_cauchy_schwarz(x, t, (1.5, 0.8))) < 0.9


def test_hsic_is_the_trace_of_centred_kernels():
    x, t = _batch(30, 3), _batch(30, 2, 1)
    k, q = differentiable.gaussian(x, x, 1.5), differentiable.gaussian(t, t, 0.8)
    h = torch.eye(30, dtype=torch.float64) - 1 / 30
    traces = [torch.trace(a @ h @ b @ h) for a, b in ((k, q), (k, k), (q, q))]
    expected = float(traces[0] / (traces[1] * traces[2]).sqrt())
    assert float(differentiable.normalized_hsic(x, t, (1.5, 0.8))) == pytest.approx(expected, rel=1e-9)


def test_means_far_apart_tell_the_row_and_equal_ones_nothing():
    far, noise = 100.0 * torch.arange(20.0)[:, None], torch.zeros(20, 1)
    assert float(differentiable.pairwise_information(far, noise)) == pytest.approx(math.log(20))
    assert float(differentiable.pairwise_information(torch.ones(20, 1), noise)) == pytest.approx(0, abs=1e-6)


def test_the_normal_divergence_is_that_of_torch():
    mean, log_variance = _batch(9, 4), _batch(9, 4, 1)
    own = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(own, standard).sum(1).mean()
    assert float(differentiable.normal_divergence(mean, log_variance)) == pytest.approx(float(expected))


def test_equal_points_have_a_width_of_one():
    assert float(differentiable.median_width(torch.ones(5, 2))) == 1
    assert float(differentiable.median_width(torch.ones(1, 2))) == 1


@pytest.mark.parametrize("norm", ["paper", "repo"])
def test_gradients_are_finite_where_points_coincide(norm):
    x, y = torch.ones(6, 2), torch.ones(6, 1)
    predicted = torch.ones(6, 1, requires_grad=True)
    loss = differentiable.conditional_divergence(x, y, predicted, widths=(1.0, 1.0), norm=norm)
    loss = loss + differentiable.normalized_cauchy_schwarz(x, predicted, (1.0, 1.0))
    loss.backward()
    assert bool(torch.isfinite(predicted.grad).all())
