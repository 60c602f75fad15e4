"""SparseCBM with an l1 penalty on its concept layer, mean |M| x 1e-3 x K (arXiv 2404.03323; faults: joint.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.progress import Progress
from bntools.tools.cbm_build.joint import train
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

if TYPE_CHECKING:
    import torch

_L1 = 1e-3


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    def penalty(mixed: torch.Tensor, scores: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor:
        return _L1 * len(layer.weight) * layer.weight.abs().mean()

    return train(training, settings, progress, penalty)
