"""Whether a field after a transition has the variance that its noise level asks for."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from bntools.kernels.spectral.cosine import band, ratio
from bntools.tools.sample_bottleneck.stages.schedule import Stage

TOLERANCE = 0.05
"""Relative; three standard errors of the mean square of so many noise values are added."""


def health(x0: Tensor, stage: Stage, moment: float) -> dict[str, Any]:
    """Second moment after a transition beside (1 - t)^2 E[x0^2] + t^2, x0 the finished samples at the stage's size.

    A linear flow keeps this to all orders; a blurred, doubled or half-noised field does not.
    """
    if not len(x0):
        return {"moment_after": None, "moment_expected": None, "healthy": None}
    size = (x0.shape[-2], x0.shape[-1])
    t = stage.times[0]
    clean = float(((band(x0, stage.size) / ratio(size, stage.size)) ** 2).mean())
    expected = (1 - t) ** 2 * clean + t**2
    points = len(x0) * math.prod(x0.shape[1:-2]) * stage.size[0] * stage.size[1]
    allowed = TOLERANCE + 3 * math.sqrt(2 / points)
    healthy = expected > 0 and abs(moment / expected - 1) <= allowed
    return {"moment_after": moment, "moment_expected": expected, "healthy": bool(healthy)}
