"""FLUX.1: two by two points make a token, positions are coordinates given with every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bntools.core.diffusion.adapters.adapter import Adapter, Condition
from bntools.core.diffusion.costs import BlockStack


class Flux(Adapter):
    """FluxTransformer2DModel. The guidance is an input, so one pass is enough."""

    transformer = "FluxTransformer2DModel"
    conditions = ("prompt_embeds", "pooled_prompt_embeds")
    guided = False

    @property
    def patch(self) -> int:
        return 2

    @property
    def channels(self) -> int:
        return int(self.config["in_channels"]) // 4

    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        embeds, pooled, _ = pipe.encode_prompt(prompt=prompts, prompt_2=None)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def pack(self, x: Tensor) -> Tensor:
        """Tokens [N, h w / 4, 4 C], channels slowest within a token."""
        n, c, height, width = x.shape
        cells = x.reshape(n, c, height // 2, 2, width // 2, 2)
        return cells.permute(0, 2, 4, 1, 3, 5).reshape(n, height * width // 4, 4 * c)

    def unpack(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        c, height, width = shape
        cells = tokens.reshape(len(tokens), height // 2, width // 2, c, 2, 2)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), c, height, width)

    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        rows, columns = shape[-2] // 2, shape[-1] // 2
        ids = torch.zeros(rows, columns, 3)
        ids[..., 1] = torch.arange(rows)[:, None]
        ids[..., 2] = torch.arange(columns)[None]
        text = condition["prompt_embeds"]
        embedded = self.config.get("guidance_embeds", False)
        return {
            "encoder_hidden_states": text,
            "pooled_projections": condition["pooled_prompt_embeds"],
            "timestep": self.timestep(t, shape[0]) / 1000,
            "img_ids": ids.reshape(-1, 3).to(text),
            "txt_ids": torch.zeros(text.shape[1], 3).to(text),
            "guidance": torch.full((shape[0],), float(guidance)) if embedded else None,
        }

    def stacks(self) -> list[BlockStack]:
        c = self.config
        size = c["num_attention_heads"], c["attention_head_dim"]
        return [
            BlockStack("double", c["num_layers"], *size),
            BlockStack("single", c["num_single_layers"], *size),
        ]

    def text(self) -> int:
        return 512
