"""Tiny configs of many architectures, and models with random weights built of them."""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "num_key_value_heads": 2, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_ctx": 64,
    "max_position_embeddings": 64, "max_seq_len": 64, "d_model": 64, "n_heads": 4, "n_layers": 2, "num_layers": 2,
    "num_heads": 4, "attention_heads": 4, "ffn_dim": 96, "word_embed_proj_dim": 64, "rotary_dim": 8,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 48, "shared_expert_intermediate_size": 40, "kv_lora_rank": 16, "q_lora_rank": 24,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "first_k_dense_replace": 1, "n_group": 2,
    "topk_group": 1,
}  # fmt: skip
_ALWAYS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "is_decoder": True}
_LATENT = ("deepseek_v2", "deepseek_v3", "youtu", "minicpm3", "glm4_moe_lite")


def small_config(kind: str) -> Any:
    """A transformers config of two layers, hidden size 64; head_dim differs from 64 / heads where it may."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = CONFIG_MAPPING[kind]
    known = family().to_dict()
    sizes = {key: value for key, value in _SIZES.items() if key in known or key in family.attribute_map}
    if known.get("head_dim") or kind in ("qwen3", "ministral", "hunyuan_v1_dense"):
        sizes["head_dim"] = 32
    sizes |= dict.fromkeys((k for k in ("layer_types", "mlp_layer_types") if known.get(k)), None)
    if kind in _LATENT:
        sizes |= {"num_key_value_heads": 4, "head_dim": 8}
    if kind == "helium":
        sizes["head_dim"] = 16
    if kind == "hyperclovax":
        sizes["use_post_norm"] = True
    if kind == "gpt_neo":
        sizes["attention_types"] = [[["global", "local"], 1]]
    return family(**sizes, **_ALWAYS)


def build(config: Any) -> Any:
    """A causal language model of a config, attention and experts computed by plain matrix products."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config._experts_implementation = "eager"
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
