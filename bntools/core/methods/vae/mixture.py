"""A mixture of Gaussians with full covariances, by expectation-maximization: what codes of data look like."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_PASSES = 40
_ENOUGH = 1e-4
"""Gain of the mean log density, in nats, below which passes stop."""
_RIDGE = 1e-3
"""Added to covariances, as a share of the mean variance: a component of few rows keeps a volume."""


class Mixture(NamedTuple):
    """weights [K], means [K, k], roots [K, k, k]: lower triangular, root root^T is a covariance."""

    weights: Tensor
    means: Tensor
    roots: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Points [count, k]."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator)
        return self.means[chosen] + (self.roots[chosen] @ noise[:, :, None])[:, :, 0]

    def log_density(self, x: Tensor) -> Tensor:
        """Weighted log density [n, K] of points under each component."""
        parts = []
        for weight, mean, root in zip(self.weights, self.means, self.roots, strict=True):
            white = torch.linalg.solve_triangular(root, (x - mean).T, upper=False)
            constant = weight.log() - root.diagonal().log().sum() - 0.5 * x.shape[1] * math.log(2 * math.pi)
            parts.append(constant - 0.5 * white.square().sum(0))
        return torch.stack(parts, 1)


def fit(x: Tensor, components: int, seed: int) -> Mixture:
    """The mixture of points [n, k], from rows drawn as first means; fewer components where points are few."""
    n, k = x.shape
    components = max(1, min(components, n // (2 * k + 2)))
    x = x.double()
    spread = (x - x.mean(0)).square().mean()
    ridge = _RIDGE * spread.clamp_min(1e-12) * torch.eye(k, dtype=torch.float64)
    start = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:components]
    root = torch.linalg.cholesky((x - x.mean(0)).T @ (x - x.mean(0)) / n + ridge)
    mixture = Mixture(
        torch.full((components,), 1.0 / components, dtype=torch.float64),
        x[start],
        root.expand(components, k, k),
    )
    before = -math.inf
    for _ in range(_PASSES):
        logs = mixture.log_density(x)
        total = logs.logsumexp(1)
        mixture = _maximize(x, (logs - total[:, None]).exp(), ridge)
        gain, before = float(total.mean()) - before, float(total.mean())
        if gain < _ENOUGH:
            break
    return Mixture(*(part.float() for part in mixture))


def _maximize(x: Tensor, shares: Tensor, ridge: Tensor) -> Mixture:
    """Weights, means and covariances of points shared out among the components [n, K]."""
    counts = shares.sum(0) + 1e-9
    means = shares.T @ x / counts[:, None]
    roots = []
    for share, count, mean in zip(shares.T, counts, means, strict=True):
        centred = x - mean
        roots.append(torch.linalg.cholesky((centred * share[:, None]).T @ centred / count + ridge))
    return Mixture(counts / counts.sum(), means, torch.stack(roots))
