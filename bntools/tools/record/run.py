"""Train a fully connected network and hand over each layer's activations on the same rows at chosen epochs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bntools.core.datasets import networks
from bntools.core.datasets.labelled import Dataset, LabelledRows
from bntools.core.errors import BnError, usage

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class Recording:
    """network: `fc:` with the widths of all layers, or of the hidden ones; epochs: `log:N`, `every:N` or a list.

    rows: of the recorded split, the first so many; limit: training rows used. The optimizer is SGD with momentum.
    """

    network: str = "fc:256,20,20,20"
    train: int = 100
    epochs: str = "log:40"
    activation: str = "tanh"
    rows: int = 2000
    split: str = "train"
    limit: int | None = None
    lr: float = 0.01
    momentum: float = 0.9
    batch: int = 128
    seed: int = 0


class Snapshot(NamedTuple):
    """Activations by layer [rows, width] float32 after an epoch, and losses and accuracies then."""

    epoch: int
    layers: dict[str, NDArray[np.float32]]
    facts: dict[str, float]


def chosen_epochs(text: str, last: int) -> list[int]:
    """Epochs from 0, the network before training, to `last`, as `--epochs` says.

    >>> chosen_epochs("log:6", 100)
    [0, 1, 3, 10, 31, 100]
    >>> chosen_epochs("every:25", 60)
    [0, 25, 50, 60]
    """
    kind, _, number = text.partition(":")
    if kind in ("log", "every") and number.isdigit() and int(number) > 0:
        if kind == "every":
            return sorted({*range(0, last + 1, int(number)), last})
        steps = np.geomspace(1, max(last, 1), max(int(number) - 1, 1))
        return sorted({0, last, *(int(step) for step in steps)})
    if re.fullmatch(r"\d+(,\d+)*", text):
        epochs = sorted({int(word) for word in text.split(",")})
        if epochs[-1] <= last:
            return epochs
        raise usage(f"--epochs {text} goes beyond --train {last}", f"--train {epochs[-1]}")
    raise usage(f"no epochs {text!r}", "log:40, every:10 or 0,1,10,100")


def hidden_widths(spec: str, data: Dataset) -> str:
    """The network's name with hidden layers alone, where it names input and output, too."""
    if not re.fullmatch(r"fc:\d+(,\d+)*", spec):
        raise usage(f"no network {spec!r}", "fc:784,256,20,10: widths of the layers")
    widths = [int(word) for word in spec[3:].split(",")]
    inputs = int(np.prod(data.shape))
    if len(widths) > 2 and widths[0] == inputs and widths[-1] == data.classes:
        widths = widths[1:-1]
    elif inputs in widths[:1]:
        raise usage(f"{spec} starts at {inputs} inputs but does not end at {data.classes} classes",
                    f"fc:{inputs},...,{data.classes}, or only the hidden layers")  # fmt: skip
    return "fc:" + ",".join(map(str, widths))


def recorded_rows(data: Dataset, settings: Recording) -> LabelledRows:
    """The rows whose activations are kept: the first of the training or the test rows."""
    split = _training(data, settings) if settings.split == "train" else data.test
    return split.at(np.arange(min(settings.rows, len(split))))


def record(
    data: Dataset, settings: Recording, *, advance: Callable[[int], None] = lambda count: None
) -> Iterator[Snapshot]:
    """Train by cross-entropy and yield a snapshot at each chosen epoch. `advance` is told the epochs done.

    Raises BnError (exit 1) when the loss is no number any more.
    """
    wanted = set(chosen_epochs(settings.epochs, settings.train))
    activation = ACTIVATIONS[settings.activation]
    module = networks.named(hidden_widths(settings.network, data), data.shape, data.classes, activation)
    networks.initialize(module, settings.seed)
    train = _training(data, settings)
    x, y = networks.standardized(train.x, data.mean, data.std), torch.from_numpy(train.y)
    kept = networks.standardized(recorded_rows(data, settings).x, data.mean, data.std)
    optimizer = torch.optim.SGD(module.parameters(), settings.lr, settings.momentum)
    order = np.random.default_rng(settings.seed)
    for epoch in range(settings.train + 1):
        if epoch:
            _train_epoch(module, optimizer, (x, y), order.permutation(len(x)), settings.batch)
            advance(1)
        if epoch in wanted:
            yield Snapshot(epoch, _layers(module, kept, activation), _facts(module, data, (x, y)))


def _train_epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: tuple[Tensor, Tensor],
    order: NDArray[Any],
    batch: int,
) -> None:
    module.train()
    loss = torch.zeros(())
    for start in range(0, len(order), batch):
        chosen = torch.from_numpy(order[start : start + batch])
        loss = nn.functional.cross_entropy(module(rows[0][chosen]), rows[1][chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if not bool(torch.isfinite(loss)):
        raise BnError("training diverged: the loss is no number", "a smaller --lr")


@torch.no_grad()
def _layers(module: nn.Module, x: Tensor, activation: type[nn.Module]) -> dict[str, NDArray[np.float32]]:
    """Outputs of each activation, named by number, and the class probabilities, `out`."""
    module.eval()
    layers, number = {}, 0
    for child in module.children():
        x = child(x)
        if isinstance(child, activation):
            number += 1
            layers[str(number)] = x.numpy()
    return {**layers, "out": torch.softmax(x, 1).numpy()}


@torch.no_grad()
def _facts(module: nn.Module, data: Dataset, rows: tuple[Tensor, Tensor]) -> dict[str, float]:
    test = networks.standardized(data.test.x, data.mean, data.std), torch.from_numpy(data.test.y)
    facts = {"n_train": float(len(rows[0]))}
    for name, (x, y) in (("train", rows), ("test", test)):
        output = module(x)
        facts[f"{name}_loss"] = float(nn.functional.cross_entropy(output, y))
        facts[f"{name}_accuracy"] = float((output.argmax(1) == y).double().mean())
    return facts


def _training(data: Dataset, settings: Recording) -> LabelledRows:
    count = min(settings.limit or len(data.train), len(data.train))
    return data.train.at(np.arange(count))
