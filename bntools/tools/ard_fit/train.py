"""Training by the evidence bound: learned decoder variance, and a prior that follows the code it is the prior of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.errors import BnError
from bntools.core.methods.vae.network import Autoencoder
from bntools.core.methods.vae.scores import Prior, divergence, encode_all, second_moments, squared_errors
from bntools.core.progress import Step, no_step
from bntools.core.training.loop import Schedule, adam, descend
from bntools.tools.ard_fit.data import Data
from bntools.tools.ard_fit.settings import Settings

RATE = 1e-3
FOLLOW = 0.02
"""Share of a batch's moments in the running prior and decoder variance: a memory of about 50 batches."""
SMALLEST_VARIANCE = 1e-7
"""Of the decoder, as a share of the data's: below it is float32's own rounding."""
ACTIVE = 0.05
"""Nats of an axis' rate above which it counts as active."""
CHECKS, STABLE, PLATEAU = 10, 3, 0.005
"""Looks at held-out rows; those over which the count must stay; and the change of the bound, in shares, between two."""
_CHECK_ROWS, _MOMENT_ROWS = 1000, 20_000


class Check(NamedTuple):
    """Held-out rows after some epochs: the negative bound in nats a row, and axes over ACTIVE."""

    epoch: int
    nats: float
    active: int


@dataclass
class Trained:
    """A network, its prior, the decoder's variance in units of the network's rows, and what was seen on the way."""

    net: Autoencoder
    prior: Prior
    variance: float
    checks: list[Check] = field(default_factory=list)
    steps: int = 0

    @property
    def converged(self) -> bool:
        """Whether the count stood over the last checks and the bound had settled."""
        last = self.checks[-STABLE:]
        if len(last) < STABLE or len({check.active for check in last}) > 1:
            return False
        reach = max(check.nats for check in self.checks) - min(check.nats for check in self.checks)
        return abs(last[-1].nats - last[-2].nats) <= max(PLATEAU * reach, 1e-3)


class Objective:
    """The negative bound of a batch, in nats a row, and what follows the codes behind each step.

    follow: whether the prior does (ARD-VAE); it then stays N(0, 1), since after each step the code is put in units of
    its second moment about its mean, in both networks. variance: of the decoder, None to learn it in closed form.
    """

    def __init__(self, net: Autoencoder, settings: Settings, variance: float | None, seed: int) -> None:
        self.net, self.follow = net, settings.method == "ard-vae" and settings.update == "step"
        self.fixed, self.variance = variance is not None, 1.0 if variance is None else variance
        self.generator = torch.Generator().manual_seed(seed)
        self._moments: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        mean, log_variance = self.net.encode(x)
        noise = torch.randn(mean.shape, generator=self.generator)
        z = mean + noise * (0.5 * log_variance).exp()
        error = (self.net.decode(z) - x).flatten(1).square().sum(1).mean()
        square = log_variance.exp()
        rate = 0.5 * (mean.square() + square - log_variance - 1).sum(1).mean()
        with torch.no_grad():
            if self.follow:
                first = mean.mean(0)
                self._moments = first, mean.var(0, unbiased=False) + square.mean(0)
            if not self.fixed:
                share = float(error) / self.net.arch.size
                self.variance = max(self.variance + FOLLOW * (share - self.variance), SMALLEST_VARIANCE)
        return error / (2 * self.variance) + rate

    def after(self) -> None:
        if self._moments is not None:
            first, second = self._moments
            self.net.regauge(FOLLOW * first, 1 + FOLLOW * (second - 1))


def train(
    net: Autoencoder, data: Data, settings: Settings, *, epochs: int, seed: int, rate: float | None = None,
    variance: float | None = None, step: Step = no_step,
) -> Trained:  # fmt: skip
    """Train a network from what it holds. variance: the decoder's to begin with, or the fixed one of the settings.

    Raises BnError (exit 1) where the loss is not finite.
    """
    fixed = None if settings.variance is None else settings.variance / data.scale**2
    objective = Objective(net, settings, fixed, seed)
    if fixed is None and variance is not None:
        objective.variance = variance
    size = settings.batch_size()
    schedule = Schedule(epochs * data.steps(size), rate or settings.rate or RATE)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer, done, checks = adam(parameters), 0, []
    looks = {round(epochs * (i + 1) / CHECKS) for i in range(CHECKS)}
    net.train()
    for epoch in range(epochs):
        if settings.method == "ard-vae" and settings.update == "epoch":
            _regauge(net, data.sample(_MOMENT_ROWS, epoch))
        try:
            descend(parameters, data.batches(size, epoch, seed), objective, schedule, start=done,
                    optimizer=optimizer, after=objective.after)  # fmt: skip
        except FloatingPointError as error:
            raise BnError(f"training broke off: {error}", "a smaller --rate, or fewer axes") from None
        done += data.steps(size)
        if epoch + 1 in looks:
            checks.append(check(net, data.held_out[:_CHECK_ROWS], epoch + 1, seed))
        step(1)
    net.eval()
    if settings.method == "ard-vae":
        _regauge(net, data.sample(_MOMENT_ROWS))
    ones = torch.ones(net.arch.dim)
    return Trained(net, Prior(torch.zeros_like(ones), ones), objective.variance, checks, done)


def _regauge(net: Autoencoder, x: Tensor) -> None:
    """Put the code in units of its own moments over these rows."""
    codes = encode_all(net, x)
    mean = codes.mean.mean(0)
    net.regauge(mean, second_moments(codes, Prior(mean, torch.ones_like(mean))).clamp_min(1e-12))


@torch.no_grad()
def check(net: Autoencoder, x: Tensor, epoch: int, seed: int) -> Check:
    """The bound under the decoder variance that suits these rows best, and the active axes."""
    codes = encode_all(net, x)
    ones = torch.ones(net.arch.dim)
    rates = divergence(codes, Prior(torch.zeros_like(ones), ones)).mean(0)
    error = squared_errors(net, x, codes.sampled(seed)).mean() / net.arch.size
    nats = 0.5 * net.arch.size * float(error.clamp_min(SMALLEST_VARIANCE).log() + 1) + float(rates.sum())
    return Check(epoch, nats, int((rates > ACTIVE).sum()))
