"""ECBM (arXiv 2401.14142): energies of rows with classes, rows with concepts, and concepts with classes.

Each energy is fitted by its own exact likelihood: E_xy and E_cy by the softmax over classes, E_xc by the logistic of
each concept; weights 3, 1, 1. A share of the concepts is flipped in a share of the rows for E_cy. Faults of the paper's
form, and what is done here: its losses do not see the part of E_cy that is the same for all classes, which inference
over concepts would follow: it is taken out. The weight of E_cy is set by hand there (0.01, and 3 alone once concepts
are corrected): here it is chosen by the log loss of held-out rows, without and with concepts known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Floats, unit
from bntools.core.methods.cbm.energy.energies import EnergyModel
from bntools.core.methods.cbm.energy.inference import marginals
from bntools.core.progress import Progress, Step
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Training

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = 64
COUPLINGS = (0.0, 0.1, 0.3, 1.0, 2.0)
_WEIGHTS = (3.0, 1.0, 1.0)
_RATE, _DECAY, _BATCH, _DROPOUT = 3e-3, 1e-4, 128, 0.2
_FLIPPED_ROWS, _FLIPPED = 0.2, 0.2
_JUDGED = 2000
"""Held-out rows at most that a coupling is judged by."""


class Choice(NamedTuple):
    """A coupling and what held-out rows say of it: log loss, accuracy, and the same with half of the concepts known."""

    coupling: float
    log_loss: float
    accuracy: float
    log_loss_known: float
    accuracy_known: float


def fit(
    training: Training, present: NDArray[np.int8], settings: Settings, progress: Progress
) -> tuple[EnergyModel, list[Choice]]:
    """The model of all rows, its couplings chosen by one of `part` alone. present [N, K]: annotations of the bank's
    concepts, 1, 0 and -1 (unknown)."""
    held, choices = training.held[:_JUDGED], []
    couplings = (1.0, 1.0)
    with progress("epochs", settings.epochs * (2 if len(held) else 1)) as advance:
        if len(held):
            part = _train(training, present, training.part, settings, advance)
            choices = [_judge(part, training, present, held, value) for value in COUPLINGS]
            best = min(choices, key=lambda choice: choice.log_loss)
            couplings = (best.coupling, min(choices, key=lambda choice: choice.log_loss_known).coupling)
        model = _train(training, present, np.arange(len(training.y)), settings, advance)
    return replace(model, coupling=couplings), choices


def _judge(
    model: EnergyModel,
    training: Training,
    present: NDArray[np.int8],
    rows: NDArray[np.int64],
    coupling: float,
) -> Choice:
    model = replace(model, coupling=(coupling, coupling))
    known = np.where(np.random.default_rng(0).random((len(rows), present.shape[1])) < 0.5, present[rows], -1)
    y, scores = training.y[rows], []
    for evidence in (None, known.astype(np.int8)):
        p = marginals(model, training.embeddings[rows], evidence).classes
        loss = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()
        scores += [float(loss), float((p.argmax(1) == y).mean())]
    return Choice(coupling, *scores)


def _train(
    training: Training, present: NDArray[np.int8], rows: NDArray[np.int64], settings: Settings, advance: Step
) -> EnergyModel:
    import torch

    from bntools.core.training.loop import Schedule, descend

    torch.manual_seed(settings.seed)
    center, spread = _scale(training.embeddings[rows])
    sizes = (len(training.classes), len(training.bank), training.embeddings.shape[1])
    net = _parameters(*sizes)
    x = torch.from_numpy(((training.embeddings[rows] - center) / spread).astype(np.float32))
    y, v = torch.from_numpy(training.y[rows]), torch.from_numpy(present[rows].astype(np.float32))
    draw = torch.Generator().manual_seed(settings.seed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for _ in range(settings.epochs):
            for index in torch.randperm(len(y), generator=draw).split(_BATCH):
                yield x[index], y[index], v[index]
            advance(1)

    steps = settings.epochs * -(-len(y) // _BATCH)
    adam = torch.optim.AdamW(list(net.values()), _RATE, weight_decay=_DECAY)
    schedule = Schedule(steps, _RATE)
    descend(list(net.values()), batches(), lambda batch: _loss(net, batch, draw), schedule, optimizer=adam)
    trained = {name: value.detach().numpy() for name, value in net.items()}
    return _folded(trained, training, (center, spread), settings)


def _scale(embeddings: Floats) -> tuple[Floats, float]:
    center = embeddings.mean(0)
    return center, max(float((embeddings - center).std()), 1e-12)


def _parameters(classes: int, concepts: int, width: int) -> dict[str, Any]:
    """Parameters by name; embeddings of classes and concepts are brought to length 1 where they are used."""
    import torch

    def normal(*shape: int, fan: int = 1) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.randn(*shape) / fan**0.5)

    return {
        "to_class": normal(HIDDEN, width, fan=width), "class_shift": torch.nn.Parameter(torch.zeros(HIDDEN)),
        "to_concept": normal(HIDDEN, width, fan=width), "concept_shift": torch.nn.Parameter(torch.zeros(HIDDEN)),
        "class_vectors": normal(classes, HIDDEN), "concept_vectors": normal(concepts, 2, HIDDEN),
        "class_energy": normal(HIDDEN), "concept_energy": normal(concepts, HIDDEN),
        "mixing": normal(concepts, HIDDEN, HIDDEN, fan=max(concepts // 4, 1)), "global_energy": normal(HIDDEN),
        "base": torch.nn.Parameter(torch.zeros(HIDDEN)),
    }  # fmt: skip


def _loss(net: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor], draw: Any) -> Tensor:
    import torch
    from torch.nn import functional

    x, y, v = batch
    classes, concepts = (
        functional.normalize(net[name], dim=-1) for name in ("class_vectors", "concept_vectors")
    )
    rows = functional.dropout((x @ net["to_class"].T + net["class_shift"]).relu(), _DROPOUT)
    of_class = functional.cross_entropy(-rows @ (net["class_energy"] * (1 + classes)).T, y)
    rows = (x @ net["to_concept"].T + net["concept_shift"]).relu()
    odds = rows @ (net["concept_energy"] * (concepts[:, 0] - concepts[:, 1])).T
    known = (v >= 0).float()
    of_concepts = functional.binary_cross_entropy_with_logits(odds, v.clamp(min=0), known, reduction="sum")
    flip = (torch.rand(len(v), 1, generator=draw) < _FLIPPED_ROWS) & (
        torch.rand(v.shape, generator=draw) < _FLIPPED
    )
    belief = torch.where(known > 0, torch.where(flip, 1 - v, v), 0.5)
    base, steps = _mixed(net["mixing"], concepts, net["base"])
    of_both = functional.cross_entropy(
        -(base + belief @ steps).relu() @ (net["global_energy"] * (1 + classes)).T, y
    )
    return _WEIGHTS[0] * of_class + _WEIGHTS[1] * of_concepts / len(v) + _WEIGHTS[2] * of_both


def _mixed(mixing: Any, concepts: Any, base: Any) -> tuple[Any, Any]:
    """P [c_1 ... c_K] of absent concepts, [h], and what each adds when it is present, [K, h]."""
    absent = (mixing @ concepts[:, 0, :, None])[..., 0]
    return base + absent.sum(0), (mixing @ concepts[:, 1, :, None])[..., 0] - absent


def _folded(
    net: dict[str, Floats], training: Training, scale: tuple[Floats, float], settings: Settings
) -> EnergyModel:
    """The parameters as the products that inference takes; what is the same for all classes goes out of E_cy."""
    classes, concepts = unit(net["class_vectors"]), net["concept_vectors"]
    concepts = concepts / np.maximum(np.linalg.norm(concepts, axis=-1, keepdims=True), 1e-12)
    base, steps = _mixed(net["mixing"], concepts, net["base"])
    (center, spread), maps = scale, {}
    for name in ("class", "concept"):
        weight = net[f"to_{name}"] / np.float32(spread)
        maps[name] = (weight, net[f"{name}_shift"] - weight @ center)
    return EnergyModel(
        maps["class"], maps["concept"], class_map=-net["class_energy"] * (1 + classes),
        concept_map=net["concept_energy"] * (concepts[:, 0] - concepts[:, 1]), base=base, steps=steps,
        global_map=net["global_energy"] * (classes - classes.mean(0)), names=training.bank.names,
        classes=training.classes, labels=np.arange(len(training.classes)), normalize=settings.normalize,
    )  # fmt: skip
