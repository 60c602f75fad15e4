"""What every adapter answers. x is always spatial, [N, C, (F,) H, W], and always (1 - t) x0 + t eps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bntools.core.diffusion.costs import BlockStack
from bntools.core.errors import usage

Condition = dict[str, Tensor]
"""Tensors that stand for a prompt, [N, ...] each; the names are the adapter's."""


class Adapter(ABC):
    """config: of the transformer. conditions: names of the tensors of a condition; the first is the text."""

    transformer: ClassVar[str]
    conditions: ClassVar[tuple[str, ...]] = ("prompt_embeds",)
    video: ClassVar[bool] = False
    flow: ClassVar[bool] = True
    guided: ClassVar[bool] = True  # whether two passes with and without the prompt are usual
    space: ClassVar[int] = 8
    time: ClassVar[int] = 4

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    @property
    def patch(self) -> int:
        """Points a side of a token, of the latents as the sampler sees them."""
        return int(self.config.get("patch_size", 2))

    @property
    def channels(self) -> int:
        return int(self.config["in_channels"])

    def shape(self, size: tuple[int, int], frames: int) -> tuple[int, ...]:
        """(C, H, W) or (C, F, H, W) of pixels (h, w) and frames. Raises BnError (exit 2) if they do not divide."""
        step = self.space * self.patch
        for side in size:
            if side % step:
                raise usage(
                    f"{side} pixels are no multiple of {step}", f"--size {side // step * step or step}"
                )
        height, width = (side // self.space for side in size)
        if not self.video:
            return self.channels, height, width
        if (frames - 1) % self.time:
            hint = f"--frames {(frames - 1) // self.time * self.time + 1}"
            raise usage(f"{frames} frames are not a multiple of {self.time} and one", hint)
        return self.channels, (frames - 1) // self.time + 1, height, width

    @abstractmethod
    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        """The condition of prompts by the pipeline's own text encoders."""

    def pack(self, x: Tensor) -> Tensor:
        """As the transformer takes it."""
        return x

    def unpack(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        """As the sampler sees it, [N, *shape]."""
        return tokens

    @abstractmethod
    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        """Keyword arguments of the transformer besides the latents, for x of a shape [N, C, (F,) h, w]."""

    def scaled(self, x: Tensor, t: float) -> Tensor:
        """x in the parametrisation of the model."""
        return x

    def velocity(self, output: Tensor, x: Tensor, t: float) -> Tensor:
        """eps - x0 from what the transformer returned for x."""
        return output

    @abstractmethod
    def stacks(self) -> list[BlockStack]:
        """The transformer's layers."""

    def text(self) -> int:
        """Tokens of text where no condition says."""
        return 256

    def decode(self, vae: Any, x: Tensor) -> Tensor:
        """Pixels [N, 3, (F,) H, W] in [-1, 1]."""
        config = vae.config
        shift = getattr(config, "shift_factor", None) or 0.0
        return vae.decode(x.to(vae.dtype) / config.scaling_factor + shift, return_dict=False)[0]

    def timestep(self, t: float, count: int, x: torch.dtype = torch.float32) -> Tensor:
        """[N] in thousandths."""
        return torch.full((count,), 1000.0 * t, dtype=x)


def take(condition: Condition, rows: slice) -> Condition:
    """Rows of a condition; a tensor of one row stands for all."""
    count = rows.stop - rows.start
    return {k: v.expand(count, *v.shape[1:]) if v.shape[0] == 1 else v[rows] for k, v in condition.items()}
