"""High, low, high resolution: sampling that spends most steps where they are cheap.

>>> import torch
>>> from bntools.core.diffusion.gaussian import GaussianField
>>> from bntools.kernels.spectral.handoff import Spectrum
>>> from bntools.tools.sample_bottleneck import Settings, build_schedule, sample
>>> flat = torch.ones(1, 8, 8)
>>> field = GaussianField("white", (1, 8, 8), Spectrum(0 * flat, flat))
>>> settings = Settings()
>>> samples = sample(field, build_schedule(settings, field), settings, count=2)
>>> tuple(samples.x.shape)
(2, 1, 8, 8)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.sample_bottleneck.settings import Settings
    from bntools.tools.sample_bottleneck.stages.sampler import sample
    from bntools.tools.sample_bottleneck.stages.schedule import build_schedule

__all__ = ["Settings", "build_schedule", "sample"]

__getattr__ = lazily(
    __name__, {"Settings": ".settings", "build_schedule": ".stages.schedule", "sample": ".stages.sampler"}
)
