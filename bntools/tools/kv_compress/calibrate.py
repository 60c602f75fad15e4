"""What a calibration text says: the metric of every layer, and by measurement how much its errors cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.methods.kv import metric, score, token_weights, watch
from bntools.core.methods.kv.metric import QueryMetric
from bntools.core.methods.kv.prefix import CacheLayers, read_on
from bntools.core.methods.kv.score import ReferenceWindow, ScoreWindow
from bntools.core.progress import Progress, Step
from bntools.tools.kv_compress.allocate import CacheSample
from bntools.tools.kv_compress.settings import SENSITIVE_STEPS, Settings

LEAST_SENSITIVITY = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Metrics and sensitivities [L, 2] of the planned layers, and the exact runs of the calibration windows."""

    metrics: list[QueryMetric]
    sensitivity: NDArray[np.float64]
    references: list[ReferenceWindow]
    planned: list[int]

    def sample(self, settings: Settings) -> CacheSample:
        """Coordinates and classes of all tokens but the first ones of each window."""
        gamma = settings.tokens if settings.code == "entropy" else 0.0
        y, classes = [], []
        for at, layer in enumerate(self.planned):
            parts, marks = [], []
            for exact in self.references:
                k, v = (x[:, settings.sink :].float() for x in exact.prefix.kv[layer])
                parts.append(torch.cat([self.metrics[at].to(0, k), self.metrics[at].to(1, v)], -1))
                weight = exact.prefix.received[layer][:, settings.sink :]
                marks.append(token_weights.step_classes(weight, gamma))
            y.append(torch.cat(parts, 1).contiguous().numpy())
            classes.append(torch.cat(marks, 1).numpy())
        return CacheSample(self.metrics, y, classes, self.sensitivity, gamma)


def calibrate(
    model: Any, windows: Sequence[ScoreWindow], planned: list[int], settings: Settings, progress: Progress
) -> Calibration:
    """Run the calibration windows, and one of them again for each layer, keys and values."""
    recorder = metric.CacheRecorder(settings.sink)
    references = []
    with progress("calibrating", len(windows)) as step:
        for window in windows:
            references.append(score.reference(model, window, planned, recorder))
            step(1)
    modules = watch.attention_modules(model)
    metrics = []
    for layer in planned:
        moments = recorder.layers[layer]
        heads, width = moments.k.shape
        out = modules.get(layer)
        metrics.append(
            QueryMetric.of(moments, None if out is None else metric.projection_of(out, heads, width))
        )
    with progress("measuring layers", 2 * len(planned)) as step:
        sensitivity = measure(model, references[0], (metrics, planned), settings, step)
    return Calibration(metrics, sensitivity, references, planned)


def measure(
    model: Any,
    exact: ReferenceWindow,
    layers: tuple[list[QueryMetric], list[int]],
    settings: Settings,
    step: Step,
) -> NDArray[np.float64]:
    """Divergence a squared width of uniform noise on one layer's keys (0) or values (1): [L, 2]."""
    metrics, planned = layers
    generator = torch.Generator().manual_seed(settings.seed)
    result = np.empty((len(planned), 2))
    for at, layer in enumerate(planned):
        for which in (0, 1):
            noisy: CacheLayers = dict(exact.prefix.kv)
            pair = list(noisy[layer])
            pair[which] = _noisy(metrics[at], which, pair[which].float(), (settings.sink, generator))
            noisy[layer] = (pair[0], pair[1])
            logs = read_on(model, exact.prefix, exact.window.following, noisy)
            kl = float((exact.logs.exp() * (exact.logs - logs)).sum(-1).mean())
            result[at, which] = max(kl / SENSITIVE_STEPS**2, LEAST_SENSITIVITY)
            step(1)
    return result


def _noisy(metric_: QueryMetric, which: int, x: Tensor, how: tuple[int, torch.Generator]) -> Tensor:
    sink, generator = how
    y = metric_.to(which, x[:, sink:])
    noise = (torch.rand(y.shape, generator=generator) - 0.5) * SENSITIVE_STEPS
    return torch.cat([x[:, :sink], metric_.back(which, y + noise)], 1)
