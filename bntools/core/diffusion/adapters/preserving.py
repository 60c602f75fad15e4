"""Models under a variance-preserving schedule as flows: alpha = (1 - t) / n, sigma = t / n, n^2 = (1 - t)^2 + t^2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.diffusion.adapters.adapter import Adapter
from bntools.core.diffusion.field import Clock
from bntools.core.errors import bad_input


def _alphas(scheduler: Mapping[str, Any]) -> np.ndarray:
    """Cumulative products of 1 - beta [T] of a scheduler's config. Raises BnError (exit 3) for unknown schedules."""
    count = int(scheduler.get("num_train_timesteps", 1000))
    first, last = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    kind = scheduler.get("beta_schedule", "linear")
    if kind == "linear":
        betas = np.linspace(first, last, count)
    elif kind == "scaled_linear":
        betas = np.linspace(first**0.5, last**0.5, count) ** 2
    else:
        raise bad_input(f"beta_schedule {kind} of the scheduler is not known", "linear or scaled_linear")
    alphas = np.cumprod(1 - betas)
    shift = scheduler.get("snr_shift_scale")
    if shift is not None:
        alphas = alphas / (shift + (1 - shift) * alphas)
    if scheduler.get("rescale_betas_zero_snr"):
        root = np.sqrt(alphas)
        alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return alphas


class Preserving(Adapter):
    """prediction: epsilon or v_prediction, as the scheduler's config says; `schedule` must be called first."""

    flow = False

    def schedule(self, scheduler: Mapping[str, Any]) -> Clock:
        """The clock of a scheduler's config: position is the step, time is sigma / (alpha + sigma)."""
        self.prediction = str(scheduler.get("prediction_type", "epsilon"))
        if self.prediction not in ("epsilon", "v_prediction"):
            raise bad_input(
                f"prediction type {self.prediction} is not supported", "epsilon, v_prediction, or a flow"
            )
        alphas = _alphas(scheduler)
        alpha, sigma = np.sqrt(alphas), np.sqrt(1 - alphas)
        times = np.concatenate([[0.0], sigma / (alpha + sigma)])
        self._steps = np.concatenate([[-1.0], np.arange(len(alphas))])
        self._times = times
        return Clock(table=(np.linspace(0, 1, len(times)).tolist(), times.tolist()))

    def step_of(self, t: float, count: int) -> Tensor:
        """The model's own step, fractional, at a noise level [N]."""
        step = max(float(np.interp(t, self._times, self._steps)), 0.0)
        return torch.full((count,), step)

    def scaled(self, x: Tensor, t: float) -> Tensor:
        return x / ((1 - t) ** 2 + t**2) ** 0.5

    def velocity(self, output: Tensor, x: Tensor, t: float) -> Tensor:
        """Of noise: (eps - x) / (1 - t). Of v = alpha eps - sigma x0: eps - x0 from v and x together."""
        norm = ((1 - t) ** 2 + t**2) ** 0.5
        alpha, sigma = (1 - t) / norm, t / norm
        if self.prediction == "epsilon":
            return (output - x) / (1 - t)
        z = x / norm
        return (sigma * z + alpha * output) - (alpha * z - sigma * output)
