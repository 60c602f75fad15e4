"""What a calibration text says: the metric of every layer, and by measurement how much its errors cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.methods.kv import metric, score, token_weights, watch
from bntools.core.methods.kv.entropy_code import EntropyRows
from bntools.core.methods.kv.metric import QueryMetric
from bntools.core.methods.kv.prefix import CacheLayers, read_on
from bntools.core.methods.kv.score import ReferenceWindow, ScoreWindow
from bntools.core.progress import Progress, Step
from bntools.tools.kv_compress import allocate
from bntools.tools.kv_compress.allocate import CacheSample
from bntools.tools.kv_compress.settings import MEASURED_STEPS, Settings

LEAST_SENSITIVITY = 1e-6
FITTED = 384
"""Tokens a layer for the tables of that measurement."""


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
    with progress("calibrating", len(windows)) as step:
        plain = observe(model, windows, planned, settings, step)
    with progress("measuring layers", 2 * len(planned)) as step:
        gauge = LayerGauge.of(model, plain, settings)
        sensitivity = np.empty((len(planned), 2))
        for at, which in np.ndindex(*sensitivity.shape):
            sensitivity[at, which] = gauge.measure(at, which)
            step(1)
    return replace(plain, sensitivity=sensitivity)


def observe(
    model: Any, windows: Sequence[ScoreWindow], planned: list[int], settings: Settings, step: Step
) -> Calibration:
    """Exact runs and metrics; sensitivities of 1."""
    recorder = metric.CacheRecorder(settings.sink)
    references = []
    for window in windows:
        references.append(score.reference(model, window, planned, recorder))
        step(1)
    modules = watch.attention_modules(model)
    metrics = []
    for layer in planned:
        moments = recorder.layers[layer]
        out = modules.get(layer)
        projection = None if out is None else metric.projection_of(out, *moments.k.shape)
        metrics.append(QueryMetric.of(moments, projection))
    return Calibration(metrics, np.ones((len(planned), 2)), references, planned)


@dataclass(frozen=True)
class LayerGauge:
    """Measures what one layer's errors cost, its keys (0) or values (1) rounded at `MEASURED_STEPS`.

    Rounded as the code will round: noise of the same variance averages out over the tokens that a query looks at,
    what rounding takes from small values does not, and says six times less of values.
    """

    model: Any
    plain: Calibration
    sink: int
    coders: list[EntropyRows]

    @classmethod
    def of(cls, model: Any, plain: Calibration, settings: Settings) -> LayerGauge:
        steps = np.broadcast_to(np.array(MEASURED_STEPS), plain.sensitivity.shape)
        sample = replace(plain.sample(replace(settings, code="entropy", tokens=0.0)), sensitivity=steps**-2.0)
        tables, _ = allocate.fit_tables(sample.fewer(FITTED), 1.0, 2)
        return cls(model, plain, settings.sink, allocate.entropy_rows(sample, 1.0, tables))

    def measure(self, at: int, which: int) -> float:
        """Divergence a squared step of the at-th planned layer."""
        exact, layer = self.plain.references[0], self.plain.planned[at]
        k, v = (x.float() for x in exact.prefix.kv[layer])
        old = (k[:, self.sink :], v[:, self.sink :])
        rounded = self.coders[at].rounded(*old, np.zeros((k.shape[0], old[0].shape[1]), np.int8))[which]
        pair = [k, v]
        pair[which] = torch.cat([pair[which][:, : self.sink], rounded], 1)
        changed: CacheLayers = {**exact.prefix.kv, layer: (pair[0], pair[1])}
        logs = read_on(self.model, exact.prefix, exact.window.following, changed)
        kl = float((exact.logs.exp() * (exact.logs - logs)).sum(-1).mean())
        return max(kl / MEASURED_STEPS[which] ** 2, LEAST_SENSITIVITY)
