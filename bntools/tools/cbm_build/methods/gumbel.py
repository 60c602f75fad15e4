"""SparseCBM with Gumbel noise: -log of softmax samples of the concept layer, over concepts and over the batch.

The published hard samples take the logarithm of 0; these are soft, at temperature 1 (arXiv 2404.03323; faults:
joint.py).
"""

from __future__ import annotations

from bntools.core.progress import Progress
from bntools.tools.cbm_build.joint import train
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

_SHARE = 1e-2
"""Of the loss: at 1, as published for K near the batch size, its noise drowns the classes."""


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    import torch

    generator = torch.Generator().manual_seed(settings.seed + 1)

    def penalty(mixed: torch.Tensor, scores: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor:
        noise = -torch.log(-torch.log(torch.rand(mixed.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
        noisy = mixed + noise
        return -_SHARE / 2 * (noisy.log_softmax(1).mean() + noisy.log_softmax(0).mean())

    return train(training, settings, progress, penalty)
