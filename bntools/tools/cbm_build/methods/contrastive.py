"""SparseCBM with a contrastive loss: a row's strongest concept before the layer is its target behind it.

The published loss takes concept i as the partner of image i, which is right only where the bank has one concept an
image; here the partner is the concept with the largest score (arXiv 2404.03323; faults: joint.py).
"""

from __future__ import annotations

from bntools.core.progress import Progress
from bntools.tools.cbm_build.joint import train
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

_SHARE = 0.1


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    import torch

    def penalty(mixed: torch.Tensor, scores: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor:
        return _SHARE * torch.nn.functional.cross_entropy(mixed, scores.argmax(1))

    return train(training, settings, progress, penalty)
