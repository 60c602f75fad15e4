"""Video transformers; only height and width change between stages, since autoencoders are causal in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bntools.core.diffusion.adapters.adapter import Adapter, Condition
from bntools.core.diffusion.adapters.preserving import Preserving
from bntools.core.diffusion.costs import BlockStack
from bntools.core.errors import bad_input


class LtxVideo(Adapter):
    """LTXVideoTransformer3DModel: every point is a token, positions scaled to seconds and pixels."""

    transformer = "LTXVideoTransformer3DModel"
    conditions = ("prompt_embeds", "prompt_attention_mask")
    video = True
    space, time = 32, 8
    rate = 25
    """Frames a second, the library's default."""

    @property
    def patch(self) -> int:
        return int(self.config.get("patch_size", 1))

    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        embeds, mask, _, _ = pipe.encode_prompt(prompt=prompts, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def pack(self, x: Tensor) -> Tensor:
        """Tokens [N, f h w, C p p], channels slowest within a token."""
        n, c, frames, height, width = x.shape
        p = self.patch
        cells = x.reshape(n, c, frames, height // p, p, width // p, p)
        return cells.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)

    def unpack(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        c, frames, height, width = shape
        p = self.patch
        cells = tokens.reshape(len(tokens), frames, height // p, width // p, c, p, p)
        return cells.permute(0, 4, 1, 2, 5, 3, 6).reshape(len(tokens), *shape)

    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        return {
            "encoder_hidden_states": condition["prompt_embeds"],
            "encoder_attention_mask": condition["prompt_attention_mask"],
            "timestep": self.timestep(t, shape[0]),
            "num_frames": shape[-3], "height": shape[-2], "width": shape[-1],
            "rope_interpolation_scale": (self.time / self.rate, self.space, self.space),
        }  # fmt: skip

    def stacks(self) -> list[BlockStack]:
        c = self.config
        return [BlockStack("cross", c["num_layers"], c["num_attention_heads"], c["attention_head_dim"])]

    def text(self) -> int:
        return 128

    def decode(self, vae: Any, x: Tensor) -> Tensor:
        mean, std = (v.view(1, -1, 1, 1, 1).to(x) for v in (vae.latents_mean, vae.latents_std))
        plain = (x * std / vae.config.scaling_factor + mean).to(vae.dtype)
        level = torch.zeros(len(x)) if vae.config.timestep_conditioning else None
        return vae.decode(plain, level, return_dict=False)[0]


class HunyuanVideo(Adapter):
    """HunyuanVideoTransformer3DModel: positions follow from the latents; guidance is an input, in thousandths."""

    transformer = "HunyuanVideoTransformer3DModel"
    conditions = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
    video = True
    guided = False

    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        embeds, pooled, mask = pipe.encode_prompt(prompt=prompts)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask}

    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        embedded = self.config.get("guidance_embeds", False)
        return {
            "encoder_hidden_states": condition["prompt_embeds"],
            "encoder_attention_mask": condition["prompt_attention_mask"],
            "pooled_projections": condition["pooled_prompt_embeds"],
            "timestep": self.timestep(t, shape[0]),
            "guidance": torch.full((shape[0],), 1000.0 * guidance) if embedded else None,
        }

    def stacks(self) -> list[BlockStack]:
        c = self.config
        size = c["num_attention_heads"], c["attention_head_dim"]
        return [
            BlockStack("double", c["num_layers"], *size),
            BlockStack("single", c["num_single_layers"], *size),
        ]


class CogVideoX(Preserving):
    """CogVideoXTransformer3DModel: frames before channels, v predicted; rotary positions of the base size."""

    transformer = "CogVideoXTransformer3DModel"
    video = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        if config.get("patch_size_t") is not None:
            raise bad_input("CogVideoX 1.5, with patches in time, is not supported", "a CogVideoX 1.0")

    def encode(self, pipe: Any, prompts: list[str]) -> Condition:
        embeds, _ = pipe.encode_prompt(prompt=prompts, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds}

    def pack(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)

    def unpack(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        return tokens.transpose(1, 2)

    def inputs(
        self, condition: Condition, shape: tuple[int, ...], t: float, guidance: float
    ) -> dict[str, Any]:
        return {
            "encoder_hidden_states": condition["prompt_embeds"],
            "timestep": self.step_of(t, shape[0]),
            "image_rotary_emb": self._positions(shape) if self._rotary() else None,
        }

    def _rotary(self) -> bool:
        return bool(self.config.get("use_rotary_positional_embeddings", False))

    def _positions(self, shape: tuple[int, ...]) -> Any:
        """Rotary tables of the centre of the grid the model was trained on, as its pipeline crops them."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        p = self.patch
        grid = shape[-2] // p, shape[-1] // p
        base = self.config["sample_width"] // p, self.config["sample_height"] // p
        return get_3d_rotary_pos_embed(
            embed_dim=self.config["attention_head_dim"],
            crops_coords=get_resize_crop_region_for_grid(grid, *base),
            grid_size=grid,
            temporal_size=shape[-3],
        )

    def stacks(self) -> list[BlockStack]:
        c = self.config
        # text and picture share the weights
        return [BlockStack("single", c["num_layers"], c["num_attention_heads"], c["attention_head_dim"])]

    def text(self) -> int:
        return int(self.config.get("max_text_seq_length", 226))

    def decode(self, vae: Any, x: Tensor) -> Tensor:
        return vae.decode(x.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
