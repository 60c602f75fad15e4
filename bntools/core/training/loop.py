"""Stochastic gradient descent as every small network here is trained: a schedule, batches, a loss, and a hook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from bntools.core.progress import Step, no_step

Batch = TypeVar("Batch")


class Schedule(NamedTuple):
    """Learning rate over a number of steps: linear to `peak`, then half a cosine down to `last` of it.

    warm_up: share of the steps it rises. Steps beyond the number keep the last rate.
    """

    steps: int
    peak: float
    warm_up: float = 0.05
    last: float = 0.01

    def rate(self, step: int) -> float:
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.peak * (step + 1) / rising
        share = min(1.0, (step - rising) / max(1, self.steps - rising))
        return self.peak * (self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * share)))


def descend(
    parameters: Sequence[nn.Parameter], batches: Iterable[Batch], loss: Callable[[Batch], Tensor], schedule: Schedule,
    *, start: int = 0, optimizer: torch.optim.Optimizer | None = None, after: Callable[[], None] = lambda: None,
    clip: float | None = None, step: Step = no_step,
) -> torch.optim.Optimizer:  # fmt: skip
    """Take one step of Adam a batch; returns the optimizer, to go on with it from step `start` of the schedule.

    after: called behind each step, where a method sets what is not learned by gradients. clip: largest norm of the
    gradient. Raises FloatingPointError where the loss is not finite.
    """
    descent: torch.optim.Optimizer = adam(parameters) if optimizer is None else optimizer
    for index, batch in enumerate(batches, start):
        for group in descent.param_groups:
            group["lr"] = schedule.rate(index)
        value = loss(batch)
        if not math.isfinite(float(value.detach())):
            raise FloatingPointError(f"the loss is {float(value.detach())} at step {index}")
        descent.zero_grad(set_to_none=True)
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        descent.step()
        after()
        step(1)
    return descent


def adam(parameters: Sequence[nn.Parameter], rate: float = 1e-3) -> torch.optim.Optimizer:
    """Adam with its usual decays, in one pass over memory where the processor has that."""
    return torch.optim.Adam(parameters, rate, fused=all(p.dtype == torch.float32 for p in parameters))
