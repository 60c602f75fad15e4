"""ARD-VAE to the letter (Saha, Joshi, Whitaker, arXiv 2501.10901): its schedule, prior, loss, and learning rates."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.errors import BnError
from bntools.core.methods.vae.network import Autoencoder
from bntools.core.methods.vae.scores import LatentCodes, Prior, divergence, encode_all
from bntools.core.progress import Step, no_step
from bntools.core.training.loop import Schedule, adam, descend
from bntools.tools.ard_fit.data import Data
from bntools.tools.ard_fit.settings import PAPER_BETA, PAPER_RATE, Settings
from bntools.tools.ard_fit.train import CHECKS, Check, Trained, check

SUBSET = 10_000
"""Rows a prior is estimated from and that take no step in their epoch; a fifth of the rows where there are fewer."""
PATIENCE, FACTOR = 10, 0.5
_MOST_VALIDATION = 10_000


class HyperPrior(NamedTuple):
    """a and b [L] of the precisions' Gamma posterior; the prior of the code is N(0, b / a)."""

    a: float
    b: Tensor

    @property
    def variance(self) -> Tensor:
        return self.b / self.a


def hyper_prior(z: Tensor, a0: float = 0.0, b0: float = 0.0) -> HyperPrior:
    """Posterior of a Gamma(a0, b0) precision from sampled codes z [n, L]: a0 + n / 2, b0 + sum z^2 / 2.

    The moment is about zero, not about the mean. The marginal of z is a Student t of 2 a degrees of freedom, here and
    in the paper's code taken for the Gaussian N(0, b / a).
    """
    return HyperPrior(a0 + len(z) / 2, b0 + 0.5 * z.square().sum(0))


def train(
    net: Autoencoder, data: Data, settings: Settings, *, epochs: int, seed: int, step: Step = no_step
) -> Trained:
    """Train by SSE + beta KL with a prior estimated anew before each epoch, from rows that the epoch does not use."""
    beta = PAPER_BETA if settings.beta is None else settings.beta
    generator = torch.Generator().manual_seed(seed)
    prior = Prior(torch.zeros(net.arch.dim), torch.ones(net.arch.dim))
    size, rate = settings.batch_size(), settings.rate or PAPER_RATE
    parameters = list(net.parameters())
    optimizer, done, checks = adam(parameters), 0, []
    plateau = Plateau(rate)
    looks = {round(epochs * (i + 1) / CHECKS) for i in range(CHECKS)}

    def loss(x: Tensor) -> Tensor:
        mean, log_variance = net.encode(x)
        z = mean + torch.randn(mean.shape, generator=generator) * (0.5 * log_variance).exp()
        error = (net.decode(z) - x).flatten(1).square().sum(1).mean()
        return error + beta * divergence(LatentCodes(mean, log_variance), prior).sum(1).mean()

    for epoch in range(epochs):
        left_out = None
        if settings.method == "ard-vae":
            left_out = torch.randperm(data.rows, generator=generator)[: min(SUBSET, data.rows // 5)]
            prior = _estimate(net, data, left_out, seed + epoch)
        net.train()
        try:
            descend(parameters, data.batches(size, epoch, seed, left_out), loss, Schedule(1, plateau.rate, 0, 1.0),
                    start=1, optimizer=optimizer)  # fmt: skip
        except FloatingPointError as error:
            raise BnError(f"training broke off: {error}", "a smaller --rate, or without --paper") from None
        done += data.steps(size)
        net.eval()
        plateau.see(_validation(net, data, prior, beta, "schedule" in settings.defects, seed))
        if epoch + 1 in looks:
            checks.append(_look(net, data, prior, epoch + 1, seed))
        step(1)
    net.eval()
    if settings.method == "ard-vae":
        prior = _estimate(net, data, torch.randperm(data.rows, generator=generator)[:SUBSET], seed)
    return Trained(net, prior, beta / 2, checks, done)


class Plateau:
    """A rate that halves when a loss has not fallen for more than PATIENCE epochs."""

    def __init__(self, rate: float) -> None:
        self.rate, self._best, self._waited = rate, float("inf"), 0

    def see(self, loss: float) -> None:
        if loss < self._best:
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        if self._waited > PATIENCE:
            self.rate, self._waited = FACTOR * self.rate, 0


@torch.no_grad()
def _estimate(net: Autoencoder, data: Data, rows: Tensor, seed: int) -> Prior:
    """N(0, b / a) of sampled codes, the encoder in evaluation mode."""
    net.eval()
    x = data.sample(SUBSET, seed) if data.memory is None else data.memory[rows]
    variance = hyper_prior(encode_all(net, x).sampled(seed)).variance
    return Prior(torch.zeros_like(variance), variance.clamp_min(1e-30))


@torch.no_grad()
def _validation(net: Autoencoder, data: Data, prior: Prior, beta: float, defect: bool, seed: int) -> float:
    """The loss of held-out rows. defect: with v where log v belongs, as the paper's code has it."""
    x = data.held_out[:_MOST_VALIDATION]
    codes = encode_all(net, x)
    error = (net.decode(codes.sampled(seed)) - x).flatten(1).square().sum(1).mean()
    wrong = 0.5 * float((prior.variance - prior.variance.log()).sum()) if defect else 0.0
    return float(error) + beta * (float(divergence(codes, prior).sum(1).mean()) + wrong)


@torch.no_grad()
def _look(net: Autoencoder, data: Data, prior: Prior, epoch: int, seed: int) -> Check:
    """As in default training, in units of the prior."""
    plain = copy.deepcopy(net)
    plain.regauge(prior.mean, prior.variance)
    return check(plain, data.held_out[:1000], epoch, seed)
