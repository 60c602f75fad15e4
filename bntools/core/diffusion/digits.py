"""The embedded model of handwritten digits, a flow on pixels at 16 x 16 and 32 x 32 points."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bntools.core.artifact.reader import open_path
from bntools.core.diffusion.adapters import adapter_for
from bntools.core.diffusion.adapters.adapter import Condition
from bntools.core.diffusion.field import Clock
from bntools.core.diffusion.transformer import Guidance, TransformerField
from bntools.core.errors import require, usage
from bntools.kernels.spectral.handoff import Spectrum

NAME = "digits:"
CLASSES, NO_CLASS, SIDE = 10, 10, 32
GUIDANCE = 2.5
"""Weight of the class where nothing is said: without guidance many samples are no digit."""
FOLDER = Path(__file__).resolve().parents[2] / "data" / "digits"
SHIFT = 2.0
"""Of the clock at 32 points: the ratio of the sides, so that both sizes see one signal-to-noise ratio."""


class DigitField(TransformerField):
    """labels: one a sample, 0 to 9, or 10 for any digit. The condition is a vector a class plus one for the size."""

    def __init__(self, folder: Path, labels: Tensor, scale: float = 1.0) -> None:
        diffusers = require("diffusers", "diffusion")
        config = json.loads((folder / "config.json").read_text())
        with open_path(folder / "flow.safetensors") as file:
            tensors = {name: file.tensor(name).float() for name in file.names()}
        with open_path(folder / "spectrum.safetensors") as file:
            self.spectrum = Spectrum(file.tensor("mean").double(), file.tensor("variance").double())
        plain = {key: value for key, value in config.items() if not key.startswith("_")}
        transformer: Any = diffusers.SD3Transformer2DModel(**plain)
        prefix = "transformer."
        transformer.load_state_dict(
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        )
        classes = tensors["classes"]
        negative = {"class": classes[NO_CLASS][None]} if scale != 1.0 else None
        super().__init__(
            NAME, transformer.eval(), adapter_for(config, NAME), shape=(1, SIDE, SIDE),
            condition={"class": classes[labels]}, guidance=Guidance(scale, negative), clock=Clock(SHIFT),
        )  # fmt: skip
        self.trained = (SIDE // 2, SIDE)
        self._size_vector = tensors["size"]
        self.kind = "digits"

    def inputs(self, condition: Condition, shape: tuple[int, ...], t: float) -> dict[str, Any]:
        octaves = math.log2(math.sqrt(shape[-2] * shape[-1]) / (SIDE // 2))
        vector = condition["class"] + octaves * self._size_vector
        both = {"prompt_embeds": vector[:, None], "pooled_prompt_embeds": vector}
        return super().inputs(both, shape, t)

    def cost(self, size: tuple[int, int]) -> Any:
        from bntools.core.diffusion.costs import forward_cost

        tokens = size[0] // self.patch * (size[1] // self.patch)
        return forward_cost(self.adapter.stacks(), tokens, 1).times(self.guidance.passes)


def parse_labels(text: str, count: int | None) -> Tensor:
    """Labels [N] of `7`, `0,3,7`, `all` (each digit in turn) or `any`; count: samples, by default one a label or 10.

    Raises BnError (exit 2) for anything else.
    """
    if text in ("all", "any"):
        labels = list(range(CLASSES)) if text == "all" else [NO_CLASS]
    else:
        try:
            labels = [int(word) for word in text.split(",")]
        except ValueError:
            labels = [-1]
        if not all(0 <= label < CLASSES for label in labels):
            raise usage(f"--cond {text} names no digits", "--cond 7, --cond 0,3,7, --cond all or --cond any")
    total = count or max(len(labels), 10)
    return torch.tensor([labels[i % len(labels)] for i in range(total)])
