"""MoTIF (arXiv 2509.20899): a channel of attention a concept over windows of a sequence (bntools.core...sequence).

Cross-entropy with label smoothing 0.1 and class weights, l1 on the head and on concept activations, AdamW, as
published; its faults and what `paper` brings back: see the model. Ours: a rate of 0.05 with a cosine, since there are
20 numbers a concept. What is kept is the epoch with the best log loss on held-out sequences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Floats
from bntools.core.progress import Progress
from bntools.tools.cbm_build.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from bntools.core.methods.cbm.sequence.model import Parameters

_RATE, _DECAY, _BATCH, _CLIP, _SMOOTHING = 0.05, 1e-2, 32, 1.0, 0.1
_HEAD_L1, _ACTIVATION_L1 = 1e-3, 1e-3


class Windows(NamedTuple):
    """scores [M, K] standardised; starts [N + 1]; y [N]; sequences to fit on and those held out."""

    scores: Floats
    starts: NDArray[np.int64]
    y: NDArray[np.int64]
    part: NDArray[np.int64]
    held: NDArray[np.int64]


class Trained(NamedTuple):
    """parameters of the best epoch, which it was, and its log loss and accuracy on held-out sequences."""

    parameters: Parameters
    epoch: int
    log_loss: float | None
    accuracy: float | None


def fit(windows: Windows, classes: int, settings: Settings, progress: Progress) -> Trained:
    """Train on `part`; without held-out sequences the last epoch is taken."""
    import torch

    from bntools.core.methods.cbm.sequence.model import Form, forward, initial
    from bntools.core.training.loop import Schedule, descend

    generator, form = torch.Generator().manual_seed(settings.seed), Form(paper=settings.paper)
    net = {n: v.requires_grad_() for n, v in initial(windows.scores.shape[1], classes, generator).items()}
    share = np.bincount(windows.y[windows.part], minlength=classes)
    balance = torch.from_numpy((share.sum() / np.maximum(share, 1) / classes).astype(np.float32))

    def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, mask, y = batch
        whole = forward(net, x, mask, form)
        cost = torch.nn.functional.cross_entropy(whole.logits, y, balance, label_smoothing=_SMOOTHING)
        active = whole.concepts[mask].mean()
        return cost + _HEAD_L1 * net["weight"].abs().sum() / classes + _ACTIVATION_L1 * active

    parameters = list(net.values())
    per_epoch = -(-len(windows.part) // _BATCH)
    optimizer = torch.optim.AdamW(parameters, _RATE, weight_decay=_DECAY)
    schedule = Schedule(settings.epochs * per_epoch, _RATE)
    best = Trained({}, 0, None, None)
    with progress("epochs", settings.epochs) as advance:
        for epoch in range(settings.epochs):
            order = windows.part[torch.randperm(len(windows.part), generator=generator).numpy()]
            batches = [_batch(windows, rows) for rows in np.split(order, range(_BATCH, len(order), _BATCH))]
            descend(
                parameters, batches, loss, schedule, start=epoch * per_epoch, optimizer=optimizer, clip=_CLIP
            )
            best = _better(best, epoch + 1, net, windows, form)
            advance(1)
    return best


def _batch(windows: Windows, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences padded to the longest of them."""
    import torch

    lengths = np.diff(windows.starts)[rows]
    place = np.arange(lengths.max())
    mask = place < lengths[:, None]
    index = np.where(mask, windows.starts[rows][:, None] + place, 0)
    x = torch.from_numpy(windows.scores[index] * mask[..., None])
    return x, torch.from_numpy(mask), torch.from_numpy(windows.y[rows])


def _better(best: Trained, epoch: int, net: dict[str, Any], windows: Windows, form: Any) -> Trained:
    import torch

    from bntools.core.methods.cbm.sequence.model import forward

    current = {name: value.detach().clone() for name, value in net.items()}
    if not len(windows.held):
        return Trained(current, epoch, None, None)
    logits, truth = [], windows.y[windows.held]
    with torch.no_grad():
        for rows in np.split(windows.held, range(256, len(windows.held), 256)):
            x, mask, _ = _batch(windows, rows)
            logits.append(forward(current, x, mask, form).logits)
    scores = torch.cat(logits)
    loss = float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(truth)))
    if best.log_loss is not None and best.log_loss <= loss:
        return best
    return Trained(current, epoch, loss, float((scores.argmax(1).numpy() == truth).mean()))
