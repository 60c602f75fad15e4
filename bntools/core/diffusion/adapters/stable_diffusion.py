"""Stable Diffusion 3 and 3.5: joint attention, positions cropped from the middle of one table."""

from __future__ import annotations

from typing import Any

from bntools.core.diffusion.adapters.adapter import Adapter, Condition
from bntools.core.diffusion.costs import BlockStack


class StableDiffusion3(Adapter):
    """SD3Transformer2DModel."""

    transformer = "SD3Transformer2DModel"
    conditions = ("prompt_embeds", "pooled_prompt_embeds")

    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        embeds, _, pooled, _ = pipe.encode_prompt(
            prompt=prompts, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        return {
            "encoder_hidden_states": condition["prompt_embeds"],
            "pooled_projections": condition["pooled_prompt_embeds"],
            "timestep": self.timestep(t, shape[0]),
        }

    def stacks(self) -> list[BlockStack]:
        c = self.config
        return [BlockStack("double", c["num_layers"], c["num_attention_heads"], c["attention_head_dim"])]

    def text(self) -> int:
        return 77 + 256
