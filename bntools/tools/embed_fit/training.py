"""Training one lookup and one head under the prior, with early stopping, and the choice of the prior's weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.methods.embedding.scores import log_loss
from bntools.kernels.embedding import rows
from bntools.kernels.embedding.head import Head
from bntools.tools.embed_fit.lookups import Ids, Lookup

Floats = NDArray[np.float32]
LAMBDAS = (30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Training:
    """Adam's rate, rows a step, epochs without improvement before it stops, epochs at most, binary or regression."""

    rate: float = 2e-3
    batch: int = 2048
    patience: int = 2
    epochs: int = 40
    task: str = "binary"
    seed: int = 0


class Rows(NamedTuple):
    """Numbers of values [N, fields] and outcomes [N]."""

    ids: Ids
    y: Floats


class Trained(NamedTuple):
    """The best state: its validation loss, the epoch it is from, the weight of the prior."""

    lookup: Lookup
    head: Head
    loss: float
    epoch: int
    prior: float


def loss_of(y: Floats, output: NDArray[Any], task: str) -> float:
    """Log loss, or half the mean squared error."""
    if task == "binary":
        return log_loss(y, output)
    return float(np.square(output.astype(np.float64) - y).mean() / 2)


def predict(lookup: Lookup, head: Head, ids: Ids, batch: int = 8192) -> Floats:
    """Logits, or predicted numbers, of rows."""
    lookup.settle()
    parts = [head.forward(lookup.forward(ids[i : i + batch])).numpy() for i in range(0, len(ids), batch)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class HeadState:
    """Adam's state of a head's parameters."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.moments = {
            n: (np.zeros(p.numel(), np.float32), np.zeros(p.numel(), np.float32))
            for n, p in head.parameters.items()
        }

    def step(self, rate: float, step: int) -> None:
        for name, p in self.head.parameters.items():
            g = self.head.gradients[name].reshape(-1).contiguous().numpy()
            rows.adam(p.view(-1).numpy(), g, *self.moments[name], 0.0, rate, step)


def slope(output: Any, y: Floats, task: str) -> Any:
    """Gradient of the mean loss by the outputs [B]."""
    target = torch.from_numpy(y)
    predicted = torch.sigmoid(output) if task == "binary" else output
    return (predicted - target).div_(len(y))


def train(lookup: Lookup, head: Head, data: tuple[Rows, Rows], prior: float, settings: Training) -> Trained:
    """Minimise mean loss + prior / (2 N) |table|^2 on data[0]; the best epoch by data[1].

    The prior acts on every row in every step: a value has one, however often it occurs.
    """
    learn, check = data
    rng = np.random.default_rng([settings.seed, 7])
    state, decay, step = HeadState(head), prior / len(learn.y), 0
    if settings.task == "regression" and not head.parameters["bias"].any():
        head.parameters["bias"] += float(learn.y.mean())  # far from 0 in units of Adam's rate
    best: tuple[float, int, Floats, dict[str, Any]] | None = None
    for epoch in range(1, settings.epochs + 1):
        order = rng.permutation(len(learn.y))
        for start in range(0, len(order), settings.batch):
            chosen = order[start : start + settings.batch]
            step += 1
            out = head.forward(lookup.forward(learn.ids[chosen]))
            lookup.backward(head.backward(slope(out, learn.y[chosen], settings.task)))
            state.step(settings.rate, step)
            lookup.step(decay, settings.rate, step)
        loss = loss_of(check.y, predict(lookup, head, check.ids), settings.task)
        if best is None or loss < best[0]:
            best = (loss, epoch, lookup.flat.copy(), {n: p.clone() for n, p in head.parameters.items()})
        elif epoch - best[1] >= settings.patience:
            break
    assert best is not None
    lookup.flat[:] = best[2]
    for name, p in best[3].items():
        head.parameters[name].copy_(p)
    return Trained(lookup, head, best[0], best[1], prior)


def tune(
    fit: Callable[[float], Any], start: float = 300.0, lambdas: tuple[float, ...] = LAMBDAS
) -> tuple[Any, list[dict[str, float]]]:
    """The best fit over the weights of the prior by validation loss: from `start` downhill along the grid."""
    tried: dict[float, Any] = {}

    def loss(index: int) -> float:
        if not 0 <= index < len(lambdas):
            return float("inf")
        if lambdas[index] not in tried:
            tried[lambdas[index]] = fit(lambdas[index])
        return float(tried[lambdas[index]].loss)

    at = min(range(len(lambdas)), key=lambda i: abs(np.log(lambdas[i] / start)))
    for direction in (1, -1):
        moved = False
        while loss(at + direction) < loss(at):
            at, moved = at + direction, True
        if moved:
            break
    shown = [{"lambda": value, "loss": float(one.loss)} for value, one in sorted(tried.items())]
    return tried[lambdas[at]], shown
