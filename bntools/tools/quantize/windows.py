"""Windows a run is calibrated on: of a text, made by the model itself where there is none, or none at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bntools.core.blockwise import sampled_text
from bntools.core.blockwise.windows import text_windows
from bntools.core.errors import usage
from bntools.core.model.model import Model
from bntools.core.work.folder import Work, digest_of
from bntools.tools.quantize.plan import Task
from bntools.tools.quantize.settings import RunOptions, Settings

_UNIT = "made tokens"  # of a --work folder


@dataclass(frozen=True)
class Calibration:
    """source: `text`, `made` or `none`; text: the windows of a text; shape: [windows, tokens] of what is to be made."""

    source: str = "none"
    text: Tensor | None = None
    shape: tuple[int, int] = (0, 0)
    reason: str = ""

    def __bool__(self) -> bool:
        return self.source != "none"

    def stand_in(self) -> Tensor | None:
        """Windows of the right shape, for a plan."""
        return torch.zeros(self.shape, dtype=torch.int64) if self.source == "made" else self.text

    def identity(self) -> str | None:
        """What a --work folder must have been begun with; tokens that are made follow from the source and the seed."""
        count, window = self.shape
        return f"made: {count} windows of {window}" if self.source == "made" else digest_of(self.text)

    def report(self) -> dict[str, Any]:
        """The key `calibration` of a report."""
        if self.source == "none":
            return {"source": "none", **({"reason": self.reason} if self.reason else {})}
        windows = self.stand_in()
        assert windows is not None
        rounds = {"rounds": sampled_text.PIECE - 1} if self.source == "made" else {}
        return {"source": self.source, "tokens": windows.numel(), **rounds}


def calibration(task: Task) -> Calibration:
    """What to calibrate on: nothing where the method needs none."""
    model, settings = task.model, task.settings
    adaptive = settings.criterion != "weight" and any(
        item.grid and item.grid.dim == "ada" for item in task.items
    )
    needed = needs(settings) or settings.distill > 0
    if settings.calib == "none":
        if not needed or not settings.calib_tokens:
            return Calibration(reason=settings.reason)
        return Calibration(
            "made", shape=sampled_text.shape(model, settings.calib_tokens, settings.calib_window)
        )
    if not (adaptive or needed):
        return Calibration()
    text = text_windows(model, settings.calib, settings.calib_tokens, settings.calib_window)
    return Calibration("text", text)


def windows_of(
    calibration: Calibration, model: Model, seed: int, run: RunOptions, work: Work | None
) -> Tensor | None:
    """The windows: those that are to be made are, or come from `work`, where they stay."""
    if calibration.source != "made":
        return calibration.text
    if work is not None and work.has(_UNIT):
        unit, _ = work.load(_UNIT)
        with unit:
            return unit.tensor("ids")
    count, window = calibration.shape
    with run.progress("making tokens", count * window) as step:
        windows = sampled_text.made_windows(model, count, window, seed, run.device, step)
    if work is not None:
        work.save(_UNIT, {"ids": windows}, {})
    return windows


def needs(settings: Settings) -> bool:
    """Whether inputs of the linears have to be known."""
    return bool(
        settings.method == "gptq"
        or settings.search == "weighted"
        or settings.sweeps
        or settings.entropy is not None
    )


def without_text(settings: Settings, model: Model, insists: str) -> Settings:
    """The settings that a model which makes no tokens allows without a text: the weights alone decide.

    insists: an option of the user's that cannot do without. Raises BnError (exit 2) naming it.
    """
    if not settings.calib_tokens or not (needs(settings) or insists) or sampled_text.makes(model):
        return settings
    reason = (
        f"{model.config.get('model_type', 'this model')} is no causal language model, so it makes no tokens"
    )
    if insists:
        raise usage(f"{insists} needs a calibration text: {reason}", "--calib FILE")
    return replace(
        settings, method="rtn", search="minmax", fisher=False, compensate=False, rounds=0, calib_tokens=0,
        reason=reason,
    )  # fmt: skip
