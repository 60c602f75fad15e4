"""The concept layer of SparseCBM (arXiv 2404.03323): a square map of concept scores and a head, trained together.

s: scaled cosines with all K concepts; c = M s; logits = H c, neither with a bias; cross-entropy plus a loss on c that
names the method. Adam, 1e-3. Since c is linear in the embedding, what is written is a bank of K mixed directions. Its
faults: concept k of the result is a mixture of all concepts, and its name only where it started; the head is dense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bntools.core.progress import Progress
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

if TYPE_CHECKING:
    import torch

_RATE, _BATCH, _SCALE = 1e-3, 256, 100.0
Loss = Callable[["torch.Tensor", "torch.Tensor", "torch.nn.Linear"], "torch.Tensor"]
FAULT = "concepts are mixtures: a name says where a direction started; the head is dense"


def train(training: Training, settings: Settings, progress: Progress, penalty: Loss) -> Head:
    """Fit M from the identity and H from zero on `epochs` shuffles of the rows."""
    import torch

    generator = torch.Generator().manual_seed(settings.seed)
    bank = training.bank
    center = training.embeddings.mean(0)
    x = torch.from_numpy((training.embeddings - center) @ (_SCALE * bank.vectors.T) / _spread(training))
    y, count, classes = torch.from_numpy(training.y), len(bank), len(training.classes)
    layer, head = torch.nn.Linear(count, count, bias=False), torch.nn.Linear(count, classes, bias=False)
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(head.weight)
    adam = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=_RATE)
    with progress("epochs", settings.epochs) as advance:
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(y), generator=generator).split(_BATCH):
                adam.zero_grad()
                mixed = layer(x[rows])
                loss = torch.nn.functional.cross_entropy(head(mixed), y[rows]) + penalty(
                    mixed, x[rows], layer
                )
                loss.backward()
                adam.step()
            advance(1)
    mixing = layer.weight.detach().numpy() * (_SCALE / _spread(training))
    vectors = mixing @ bank.vectors
    mixed_bank = replace(
        bank, vectors=vectors, offsets=-(vectors @ center), levels=np.full_like(bank.levels, np.nan)
    )
    weight = head.weight.detach().numpy().copy()
    return Head(weight, np.zeros(classes, np.float32), [], {"fault": FAULT}, bank=mixed_bank, raw=True)


def _spread(training: Training) -> float:
    """Brings scores to a deviation near 1: CLIP's factor of 100 on cosines does so for CLIP alone."""
    center = training.embeddings - training.embeddings.mean(0)
    return max(float((center @ (_SCALE * training.bank.vectors.T)).std()), 1e-12)
