"""Divergence of a model from a reference: the reference's run is kept as final hidden states, not as logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bntools.core.progress import Step, no_step
from bntools.tools.eval.text.head import Head, OwnHead
from bntools.tools.eval.text.perplexity import Losses, mean_error, scored_states
from bntools.tools.eval.text.protocols import Corpus

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True)
class Reference:
    """What is kept of the reference's run: states that predict the scored tokens [n, width] float16, and its head."""

    states: Tensor
    head: Head | OwnHead


@dataclass(frozen=True)
class Divergence:
    """Per scored token: kl = KL(reference || model) over the full vocabulary in nats, whether both agree on the most
    likely token, the change of the probability of the true token, and both losses."""

    kl: Tensor
    agree: Tensor
    delta: Tensor
    losses: Losses
    reference: Losses


@torch.no_grad()
def record(model: Any, head: Head | OwnHead, corpus: Corpus, step: Step = no_step) -> Reference:
    """Run the reference over the scored tokens; 2 * width bytes a token are kept."""
    states = [hidden.half().cpu() for _, hidden, _ in scored_states(model, corpus, step)]
    return Reference(torch.cat(states), head)


@torch.no_grad()
def compare(
    model: Any, head: Head | OwnHead, reference: Reference, corpus: Corpus, step: Step = no_step
) -> Divergence:
    """Run the model over the same tokens beside the recorded reference, a few positions at a time, in float32."""
    parts: list[tuple[Tensor, ...]] = []
    position = 0
    for _, hidden, targets in scored_states(model, corpus, step):
        kept = reference.states[position : position + len(targets)].to(hidden.device)
        position += len(targets)
        for part in head.chunks(len(targets)):
            logits = reference.head.logits(kept[part]), head.logits(hidden[part])
            width = min(one.shape[-1] for one in logits)  # rows beyond it pad one of the two
            theirs, ours = (one[:, :width].log_softmax(-1) for one in logits)
            parts.append(tuple(value.cpu() for value in _tokens(theirs, ours, targets[part])))
    kl, agree, delta, nll, reference_nll = (torch.cat(values) for values in zip(*parts, strict=True))
    sizes = [window.scored for window in corpus.windows]
    return Divergence(kl, agree, delta, Losses(nll, sizes), Losses(reference_nll, sizes))


def _tokens(theirs: Tensor, ours: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """KL, agreement, change of probability and both losses from two [n, vocabulary] log-probabilities."""
    agree = theirs.argmax(-1) == ours.argmax(-1)
    picked = theirs.gather(1, targets[:, None])[:, 0], ours.gather(1, targets[:, None])[:, 0]
    kl = (theirs.exp() * theirs.sub(ours)).sum(-1)
    return kl, agree, picked[1].exp() - picked[0].exp(), -picked[1], -picked[0]


def report(sums: Divergence) -> dict[str, Any]:
    """Means with standard errors, percentiles, and the ratio of perplexities with its paired interval (95 %)."""
    sizes = sums.losses.sizes
    kl = sums.kl.double()
    quantiles = torch.quantile(kl, torch.tensor(list(PERCENTILES.values()), dtype=torch.float64))
    change = sums.losses.nll.double() - sums.reference.nll.double()
    mean, error = float(change.mean()), mean_error(change, sizes)
    agree, delta = sums.agree.double(), sums.delta.double()
    return {
        "kl": {
            "mean": float(kl.mean()),
            "se": mean_error(kl, sizes),
            **{name: float(value) for name, value in zip(PERCENTILES, quantiles, strict=True)},
            "max": float(kl.max()),
        },
        "top1": float(agree.mean()),
        "top1_se": mean_error(agree, sizes),
        "ppl_ratio": {
            "value": _exp(mean), "low": _exp(mean - 1.96 * error), "high": _exp(mean + 1.96 * error),
        },
        "delta_p": {"mean": float(delta.mean()), "rms": float(delta.square().mean().sqrt())},
        "reference_perplexity": sums.reference.perplexity,
    }  # fmt: skip


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0)) if math.isfinite(value) else value
