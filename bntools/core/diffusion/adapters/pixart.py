"""PixArt-Sigma: cross attention, noise predicted under a variance-preserving schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bntools.core.diffusion.adapters.adapter import Condition
from bntools.core.diffusion.adapters.preserving import Preserving
from bntools.core.diffusion.costs import BlockStack


class PixArt(Preserving):
    """PixArtTransformer2DModel; learned variances, the second half of its channels, are dropped."""

    transformer = "PixArtTransformer2DModel"
    conditions = ("prompt_embeds", "prompt_attention_mask")

    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        embeds, mask, _, _ = pipe.encode_prompt(prompt=prompts, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        text = condition["prompt_embeds"]
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self._sized():
            height, width = (float(side * self.space) for side in shape[-2:])
            sizes = {
                "resolution": torch.tensor([[height, width]]).expand(shape[0], 2).to(text),
                "aspect_ratio": torch.tensor([[height / width]]).expand(shape[0], 1).to(text),
            }
        return {
            "encoder_hidden_states": text,
            "encoder_attention_mask": condition.get("prompt_attention_mask"),
            "timestep": self.step_of(t, shape[0]),
            "added_cond_kwargs": sizes,
        }

    def _sized(self) -> bool:
        """Whether the model is told the size of the picture: as its class decides where the config does not."""
        told = self.config.get("use_additional_conditions")
        return self.config.get("sample_size") == 128 if told is None else bool(told)

    def velocity(self, output: Tensor, x: Tensor, t: float) -> Tensor:
        return super().velocity(output[:, : self.channels], x, t)

    def stacks(self) -> list[BlockStack]:
        c = self.config
        return [BlockStack("cross", c["num_layers"], c["num_attention_heads"], c["attention_head_dim"])]

    def text(self) -> int:
        return 300
