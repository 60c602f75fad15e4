"""From a trained model to a number: relevance of axes, what pruning costs on held-out rows, and the cut."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bntools.core.methods.vae import scores
from bntools.core.methods.vae.network import Autoencoder
from bntools.core.methods.vae.scores import LatentCodes, Prior
from bntools.tools.ard_fit.data import Data
from bntools.tools.ard_fit.settings import Settings
from bntools.tools.ard_fit.train import ACTIVE, SMALLEST_VARIANCE, Trained

_SCORED_ROWS, _DECIDING_ROWS = 1000, 2048
_ONE_SIDED = 1.645
"""Standard errors of a bound that holds with 95 %."""
EDGE = 0.9
"""Share of the axes at the start from which on the start may be what limits the count."""
VARIANCE_SHARE = 0.01
"""Signal over prior variance above which an axis counts in `snr`, Burda's active units in units of the prior."""


class Relevance(NamedTuple):
    """Scores of the axes [L], and eigenvalues of the signal in the output [L], descending."""

    ablation: Tensor
    kl: Tensor
    snr: Tensor
    jacobian: Tensor
    squared_jacobian: Tensor
    eigenvalues: Tensor
    moment: Tensor

    def order(self, score: str) -> Tensor:
        """Axes, best first."""
        return getattr(self, score).argsort(descending=True, stable=True)


class Curve(NamedTuple):
    """Held-out rows with the first 0, 1, ..., L axes: squared error of mean codes, nats of the bound [L + 1, n]."""

    errors: Tensor
    nats: Tensor


class Cut(NamedTuple):
    """count: axes kept. reference: axes that pay on held-out rows. edge: whether a share EDGE of all is kept."""

    count: int
    reference: int
    edge: bool


@torch.no_grad()
def relevance(trained: Trained, data: Data, seed: int) -> Relevance:
    """Scores over training rows, so that held-out rows decide about nothing but the cut."""
    net, prior = trained.net, trained.prior
    x = data.sample(_SCORED_ROWS, seed)
    codes = scores.encode_all(net, x)
    rows = 100 if data.settings.paper else scores.JACOBIAN_ROWS
    felt = scores.sensitivity(net, codes.sampled(seed)[:rows])
    moment = scores.second_moments(codes, Prior(torch.zeros_like(prior.mean), prior.variance))
    signal = scores.signal_eigenvalues(
        felt.gram, torch.cov(codes.mean.T, correction=0).reshape(net.arch.dim, -1)
    )
    return Relevance(
        scores.ablation(net, x, codes, prior), scores.divergence(codes, prior).mean(0), scores.signal_to_noise(codes),
        felt.of_means * moment, felt.of_squares * moment, signal, moment,
    )  # fmt: skip


@torch.no_grad()
def curve(net: Autoencoder, prior: Prior, x: Tensor, order: Tensor, seed: int) -> Curve:
    """What each number of kept axes costs; the decoder's variance is for each the best one, so none is favoured."""
    codes = scores.encode_all(net, x)
    errors = scores.pruned_errors(net, x, codes, prior, order)
    noisy = scores.pruned_errors(net, x, LatentCodes(codes.sampled(seed), codes.log_variance), prior, order)
    rates = scores.divergence(codes, prior)[:, order]
    rates = torch.cat([torch.zeros(len(x), 1), rates.cumsum(1)], 1).T
    variance = (noisy.mean(1, keepdim=True) / net.arch.size).clamp_min(SMALLEST_VARIANCE)
    return Curve(errors, 0.5 * net.arch.size * variance.log() + noisy / (2 * variance) + rates)


def cut(relevances: Curve, tolerance: float) -> Cut:
    """The smallest number of axes whose held-out error is within the tolerance of the best model's, with 95 %.

    The best model is the shortest prefix whose bound is within a standard error of the best prefix's: axes that only
    fit what rows do not share raise the bound on held-out rows, and do not set the mark. No axis is also a model.
    """
    best = int(relevances.nats.mean(1).argmin())
    gap = relevances.nats - relevances.nats[best]
    close = gap.mean(1) <= _standard_error(gap) + 1e-6
    reference = int(close.nonzero()[0])
    over = relevances.errors - (1 + tolerance) * relevances.errors[reference]
    within = over.mean(1) + _ONE_SIDED * _standard_error(over) <= 0
    within[reference] = True
    count = int(within.nonzero()[0])
    return Cut(count, reference, count >= EDGE * (len(relevances.errors) - 1))


def decide(
    trained: Trained, data: Data, settings: Settings, seed: int
) -> tuple[Relevance, Tensor, Curve, Cut]:
    relevances = relevance(trained, data, seed)
    order = relevances.order(settings.score)
    costs = curve(trained.net, trained.prior, data.held_out[:_DECIDING_ROWS], order, seed)
    return relevances, order, costs, cut(costs, settings.tolerance)


def criteria(
    relevances: Relevance, costs: Curve, chosen: Cut, variance: float, explained: float
) -> dict[str, Any]:
    """The number of axes by each rule."""
    return {
        "held_out": chosen.count,
        "paying": chosen.reference,
        "paper": scores.prefix(relevances.jacobian, explained),
        "paper_squared": scores.prefix(relevances.squared_jacobian, explained),
        "kl": int((relevances.kl > ACTIVE).sum()),
        "snr": int((relevances.snr > VARIANCE_SHARE).sum()),
        "ablation": int((relevances.ablation > 1e-3 * costs.errors[-1].mean()).sum()),
        "rank": int((relevances.eigenvalues > variance).sum()),
        "variance": scores.prefix(relevances.moment, explained),
        "gap": _largest_gap(relevances.ablation),
    }


def _largest_gap(values: Tensor) -> int:
    """Axes before the largest ratio between consecutive scores."""
    ordered = values.clamp_min(0).sort(descending=True).values
    if float(ordered[0]) <= 0 or len(ordered) < 2:
        return int((ordered > 0).sum())
    logs = ordered.clamp_min(1e-6 * float(ordered[0])).log()
    return int((logs[:-1] - logs[1:]).argmax()) + 1


def _standard_error(values: Tensor) -> Tensor:
    return values.std(1) / values.shape[1] ** 0.5
