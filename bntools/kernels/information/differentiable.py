"""Dependence and divergence by Gaussian kernels, of batches and with gradients: what bottlenecks are trained by.

Each takes points [N, D] of a batch, N^2 numbers in memory; `kernel_matrices` has the measure of many rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-12


def gaussian(a: Tensor, b: Tensor, width: float | Tensor) -> Tensor:
    """exp(-|a_i - b_j|^2 / (2 h^2)) [N, M] of points a [N, D], b [M, D]."""
    apart = a.square().sum(1)[:, None] - 2 * a @ b.T + b.square().sum(1)
    return torch.exp(apart.clamp(min=0) / (-2 * width**2))


def median_width(points: Tensor) -> Tensor:
    """Median distance between different points of the batch, without a gradient; 1 where they coincide."""
    with torch.no_grad():
        apart = torch.pdist(points)
        median = apart.median() if len(apart) else apart.new_ones(())
        return torch.where(median > 0, median, torch.ones_like(median))


def conditional_divergence(
    x: Tensor, y: Tensor, predicted: Tensor, *, widths: tuple[float, float], norm: str = "paper"
) -> Tensor:
    """Cauchy-Schwarz divergence of p(y | x) from p(predicted | x), in nats; 0 where they are equal.

    ln A(y, y) + ln A(p, p) - 2 ln A(y, p), A(a, b) = sum_j sum_i K_ji G(a_j - b_i) / (sum_i K_ji)^2 (Yu et al.
    2024), K over x. norm: `paper`, or `repo` for sum_i K_ji^2 in the denominator, as their code has it.
    widths: of x and y.
    """
    k = gaussian(x, x, widths[0])
    weights = k / (k.sum(1, keepdim=True).square() if norm == "paper" else k.square().sum(1, keepdim=True))
    own, theirs, cross = (
        (weights * gaussian(a, b, widths[1])).sum().clamp(min=_LEAST)
        for a, b in ((y, y), (predicted, predicted), (y, predicted))
    )
    return own.log() + theirs.log() - 2 * cross.log()


def cauchy_schwarz(k: Tensor, q: Tensor) -> Tensor:
    """Cauchy-Schwarz information of two kernel matrices [N, N] of the same rows, in nats."""
    rows = k.mean(1), q.mean(1)
    return (
        (k * q).mean().log() + (rows[0].mean() * rows[1].mean()).log() - 2 * (rows[0] * rows[1]).mean().log()
    )


def normalized_cauchy_schwarz(x: Tensor, t: Tensor, widths: tuple[float | Tensor, float | Tensor]) -> Tensor:
    """I(x, t) / sqrt(I(x, x) I(t, t)) of Cauchy-Schwarz information: 0 if independent, 1 if t is x."""
    k, q = gaussian(x, x, widths[0]), gaussian(t, t, widths[1])
    scale = (cauchy_schwarz(k, k) * cauchy_schwarz(q, q)).clamp(min=_LEAST).sqrt()
    return cauchy_schwarz(k, q) / scale


def normalized_hsic(x: Tensor, t: Tensor, widths: tuple[float | Tensor, float | Tensor]) -> Tensor:
    """tr(K H Q H) / sqrt(tr(K H K H) tr(Q H Q H)) of Gaussian kernels, H the centring matrix."""
    k, q = _centred(gaussian(x, x, widths[0])), _centred(gaussian(t, t, widths[1]))
    scale = (k.square().sum() * q.square().sum()).clamp(min=_LEAST).sqrt()
    return (k * q).sum() / scale


def pairwise_information(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Upper bound of I(x; t) in nats for t ~ N(mean, s^2 I) of one variance, x uniform over the batch.

    -1/N sum_i ln 1/N sum_j exp(-|m_i - m_j|^2 / (2 s^2)) (Kolchinsky, Tracey and Wolpert 2019).
    """
    width = torch.exp(log_variance.mean() / 2)
    return -gaussian(mean, mean, width).mean(1).clamp(min=_LEAST).log().mean()


def normal_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over rows of KL(N(mean, diag s^2) || N(0, I)) in nats; mean, log_variance [N, D]."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


def _centred(matrix: Tensor) -> Tensor:
    return matrix - matrix.mean(0) - matrix.mean(1)[:, None] + matrix.mean()
