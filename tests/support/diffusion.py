"""Tiny random transformers and pipelines of the library diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "SD3Transformer2DModel": {
        "sample_size": 8, "patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 16, "caption_projection_dim": 16,
        "pooled_projection_dim": 16, "pos_embed_max_size": 8,
    },
    "FluxTransformer2DModel": {
        "patch_size": 1, "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 16, "pooled_projection_dim": 16,
        "axes_dims_rope": (2, 2, 4), "guidance_embeds": True,
    },
    "PixArtTransformer2DModel": {
        "sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 2, "cross_attention_dim": 16, "caption_channels": 16,
    },
    "LTXVideoTransformer3DModel": {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
        "cross_attention_dim": 16, "num_layers": 2, "caption_channels": 16,
    },
    "HunyuanVideoTransformer3DModel": {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1,
        "num_single_layers": 1, "num_refiner_layers": 1, "patch_size": 2, "patch_size_t": 1, "guidance_embeds": True,
        "text_embed_dim": 16, "pooled_projection_dim": 16, "rope_axes_dim": (2, 2, 4),
    },
    "CogVideoXTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 4,
        "text_embed_dim": 16, "num_layers": 2, "sample_width": 8, "sample_height": 8, "sample_frames": 9,
        "patch_size": 2, "temporal_compression_ratio": 4, "max_text_seq_length": 5,
        "use_rotary_positional_embeddings": True,
    },
}  # fmt: skip


def tiny_transformer(name: str, seed: int = 0) -> Any:
    """Random weights of a size that lets every input be seen in the output."""
    import diffusers
    import torch

    torch.manual_seed(seed)
    model = getattr(diffusers, name)(**TINY[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model


def condition_for(name: str, count: int, seed: int = 3) -> dict[str, Any]:
    """Random prompts of five tokens."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Any] = {"prompt_embeds": torch.randn(count, 5, 16, generator=generator)}
    if name in ("SD3Transformer2DModel", "FluxTransformer2DModel", "HunyuanVideoTransformer3DModel"):
        found["pooled_prompt_embeds"] = torch.randn(count, 16, generator=generator)
    if name in ("PixArtTransformer2DModel", "LTXVideoTransformer3DModel", "HunyuanVideoTransformer3DModel"):
        found["prompt_attention_mask"] = torch.ones(count, 5, dtype=torch.long)
    return found


def save_transformer(name: str, folder: Path) -> Path:
    """A transformer's folder, as its library saves it."""
    tiny_transformer(name).save_pretrained(folder)
    return folder


def save_stable_diffusion(folder: Path) -> Path:
    """A pipeline of Stable Diffusion 3 with a tiny autoencoder and without text encoders."""
    import diffusers
    import torch

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4, 4, 4, 4), norm_num_groups=2,
        latent_channels=4, sample_size=64, use_quant_conv=False, use_post_quant_conv=False,
        scaling_factor=1.5, shift_factor=0.06,
    )  # fmt: skip
    diffusers.StableDiffusion3Pipeline(
        transformer=tiny_transformer("SD3Transformer2DModel"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae,
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None,
    ).save_pretrained(folder)  # fmt: skip
    return folder
