"""How much each axis of a code matters: moments, rate, signal to noise, Jacobian, ablation, and a rank without axes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vmap

from bntools.core.methods.vae.network import Autoencoder

_BATCH = 1000
JACOBIAN_ROWS = 256
"""Rows whose Jacobian the default takes; the paper takes 100."""


class LatentCodes(NamedTuple):
    """Means and log variances [n, L] of the codes of some rows."""

    mean: Tensor
    log_variance: Tensor

    def sampled(self, seed: int) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=torch.Generator().manual_seed(seed))
        return self.mean + noise * (0.5 * self.log_variance).exp()


class Prior(NamedTuple):
    """Means and variances [L] of a Gaussian prior."""

    mean: Tensor
    variance: Tensor


@torch.no_grad()
def encode_all(net: Autoencoder, x: Tensor) -> LatentCodes:
    """LatentCodes of rows in memory, a batch at a time."""
    parts = [net.encode(part) for part in x.split(_BATCH)]
    return LatentCodes(torch.cat([mean for mean, _ in parts]), torch.cat([log for _, log in parts]))


@torch.no_grad()
def squared_errors(net: Autoencoder, x: Tensor, z: Tensor) -> Tensor:
    """Sum of squared errors [n] of each row under its code."""
    parts = zip(x.split(_BATCH), z.split(_BATCH), strict=True)
    return torch.cat([(net.decode(b) - a).flatten(1).square().sum(1) for a, b in parts])


def divergence(codes: LatentCodes, prior: Prior) -> Tensor:
    """KL(q(z_l | x) || p(z_l)) [n, L] in nats:

    1/2 (log v - log s^2 - 1 + ((mu - m)^2 + s^2) / v).
    """
    v = prior.variance
    square = (codes.mean - prior.mean).square() + codes.log_variance.exp()
    return 0.5 * (v.log() - codes.log_variance - 1 + square / v)


def second_moments(codes: LatentCodes, prior: Prior) -> Tensor:
    """E (mu - m)^2 + s^2 [L], about the prior's mean: what sampled codes have, without the noise of sampling."""
    return (codes.mean - prior.mean).square().mean(0) + codes.log_variance.exp().mean(0)


def signal_to_noise(codes: LatentCodes) -> Tensor:
    """Var(mu_l) / (Var(mu_l) + E s_l^2), [L] from 0 to 1."""
    signal = codes.mean.var(0, unbiased=False)
    return signal / (signal + codes.log_variance.exp().mean(0))


def jacobians(net: Autoencoder, z: Tensor) -> Tensor:
    """d x / d z [n, L, D] at codes z [n, L], a forward-mode pass an axis."""
    axes = torch.eye(z.shape[1])

    def along(axis: Tensor) -> Tensor:
        return jvp(net.decode, (z,), (axis.expand_as(z),))[1]

    with torch.no_grad():
        return vmap(along, chunk_size=8)(axes).flatten(2).transpose(0, 1)


class AxisSensitivity(NamedTuple):
    """Of a decoder over some codes: E |J_jl| summed as (E |J|)^2 [L], E J^2 [L], and E J^T J [L, L]."""

    of_means: Tensor
    of_squares: Tensor
    gram: Tensor


def sensitivity(net: Autoencoder, z: Tensor, block: int = 32) -> AxisSensitivity:
    """Moments of the Jacobian, `block` rows at a time. Batch normalization must be in evaluation mode."""
    size, width = net.arch.size, z.shape[1]
    absolute, gram = torch.zeros(width, size), torch.zeros(width, width)
    for part in z.contiguous().split(max(1, min(block, (1 << 25) // (size * width) + 1))):
        J = jacobians(net, part)
        absolute += J.abs().sum(0)
        gram += (J @ J.transpose(1, 2)).sum(0)
    gram /= len(z)
    return AxisSensitivity((absolute / len(z)).square().sum(1), gram.diagonal().clone(), gram)


def signal_eigenvalues(gram: Tensor, covariance: Tensor) -> Tensor:
    """Eigenvalues [L], descending, of E[J^T J] v = w Cov(mu)^-1 v: output variance each direction of the code carries.

    They are those of C^(1/2) G C^(1/2), so a singular covariance does no harm; no rotation or scaling of the code
    changes them. In a linear model they are the signal's eigenvalues of the data's covariance.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.clamp_min(0).sqrt()
    return torch.linalg.eigvalsh(root.T @ gram.double() @ root).flip(0).clamp_min(0).float()


def ablation(net: Autoencoder, x: Tensor, codes: LatentCodes, prior: Prior) -> Tensor:
    """Mean squared error added [L] when one axis stands at the prior's mean, everything else as it is."""
    full = squared_errors(net, x, codes.mean).mean()
    costs = []
    for axis in range(codes.mean.shape[1]):
        z = codes.mean.clone()
        z[:, axis] = prior.mean[axis]
        costs.append(squared_errors(net, x, z).mean() - full)
    return torch.stack(costs)


def prefix(scores: Tensor, share: float) -> int:
    """Size of the smallest set of axes, best first, whose scores reach more than `share` of all."""
    ordered = scores.clamp_min(0).sort(descending=True).values.double()
    total = float(ordered.sum())
    if total <= 0:
        return 0
    return min(int((ordered.cumsum(0) <= share * total).sum()) + 1, len(ordered))


def pruned_errors(net: Autoencoder, x: Tensor, codes: LatentCodes, prior: Prior, order: Tensor) -> Tensor:
    """Squared errors [L + 1, n] with the first 0, 1, ..., L axes of `order` in use, the others at the prior's mean."""
    rows = []
    for count in range(len(order) + 1):
        z = prior.mean.expand_as(codes.mean).clone()
        z[:, order[:count]] = codes.mean[:, order[:count]]
        rows.append(squared_errors(net, x, z))
    return torch.stack(rows)
