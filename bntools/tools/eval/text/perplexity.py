"""Losses of a language model over scored tokens, and perplexity with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bntools.core.progress import Step, no_step
from bntools.tools.eval.text.head import Head, OwnHead, hidden_states
from bntools.tools.eval.text.protocols import Corpus, Window


@dataclass(frozen=True)
class Losses:
    """nll: float32 loss of every scored token, in nats; sizes: scored tokens of each window, in the same order."""

    nll: Tensor
    sizes: list[int]

    @property
    def mean(self) -> float:
        return float(self.nll.double().mean())

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.mean, 700.0))


def scored_states(model: Any, corpus: Corpus, step: Step) -> Iterator[tuple[Window, Tensor, Tensor]]:
    """For each window the hidden states that predict its scored tokens [n, width], and those tokens [n]."""
    device = next(model.parameters()).device
    for window in corpus.windows:
        ids = torch.tensor(window.ids, device=device)
        hidden = hidden_states(model, ids[None, :-1])[0]
        yield window, hidden[window.first - 1 :], ids[window.first :]
        step(window.scored)


@torch.no_grad()
def score(model: Any, head: Head | OwnHead, corpus: Corpus, step: Step = no_step) -> Losses:
    """Loss of every scored token; full-vocabulary logits exist for a few positions at a time."""
    parts = []
    for _, hidden, targets in scored_states(model, corpus, step):
        parts += [_losses(head.logits(hidden[part]), targets[part]) for part in head.chunks(len(targets))]
    return Losses(torch.cat(parts), [window.scored for window in corpus.windows])


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu()


def mean_error(values: Tensor, sizes: list[int]) -> float:
    """Standard error of the mean of per-token values.

    Tokens of one window share their context, so from eight windows on windows are the sampling unit:
    se^2 = W / (W - 1) sum_w (S_w - n_w m)^2 / N^2 (ratio estimator); below that tokens are taken as independent.
    """
    values = values.double()
    if len(sizes) < 8:
        return float(values.std(unbiased=True) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    mean = values.mean()
    sums = torch.stack([part.sum() - len(part) * mean for part in values.split(sizes)])
    return float((sums.square().sum() * len(sizes) / (len(sizes) - 1)).sqrt() / len(values))


def report(losses: Losses, corpus: Corpus) -> dict[str, Any]:
    """Perplexity, its standard error, and for lmeval the word and byte figures."""
    perplexity, error = losses.perplexity, mean_error(losses.nll, losses.sizes)
    result: dict[str, Any] = {
        "perplexity": perplexity,
        "perplexity_se": perplexity * error,
        "nll": losses.mean,
        "tokens": len(losses.nll),
        "windows": len(losses.sizes),
        "window": corpus.window,
        "protocol": corpus.protocol,
    }
    if corpus.words and corpus.bytes:
        total = float(losses.nll.double().sum())
        result["word_perplexity"] = math.exp(min(total / corpus.words, 700.0))
        result["byte_perplexity"] = math.exp(total / corpus.bytes)
        result["bits_per_byte"] = total / corpus.bytes / math.log(2)
    return result
