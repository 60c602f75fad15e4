"""A tiny random model of every text class of transformers: its default config with small sizes where it names sizes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOCABULARY = 1024
"""That of the embedded model, whose tokenizer goes with every model."""
MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "encoder": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "encoder-decoder": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}
LARGEST = 16_000_000
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "d_model": 64, "n_embd": 64, "dim": 64, "embed_dim": 64,
    "embedding_size": 64, "word_embed_proj_dim": 64, "intermediate_size": 96, "ffn_dim": 96, "n_inner": 96,
    "hidden_dim": 96, "d_ff": 96, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32, "intermediate_size_mlp": 96, "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "d_kv": 16, "max_position_embeddings": 256, "n_positions": 256,
    "num_experts": 8, "num_local_experts": 8, "n_routed_experts": 8, "moe_num_experts": 8, "num_experts_per_tok": 2,
    "moe_topk": 2, "moe_k": 2, "n_group": 1, "topk_group": 1, "kv_lora_rank": 16, "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16, "qk_head_dim": 32, "v_head_dim": 16, "zero_expert_num": 2, "first_k_dense_replace": 1,
    "num_encoder_layers": 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    "attention_hidden_size": 64, "state_size": 16, "time_step_rank": 8, "lru_width": 64, "index_n_heads": 4,
    "index_head_dim": 32, "index_topk": 64, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY, "vocab_size_or_config_json_file": VOCABULARY,
}  # fmt: skip
"""Sizes by the names that configs give them; a config takes those it has."""


def classes(family: str) -> dict[str, str]:
    """Model types by class name, of `causal`, `encoder` or `encoder-decoder`."""
    from transformers.models.auto import modeling_auto

    found = dict(getattr(modeling_auto, MAPPINGS[family]))
    return {name if isinstance(name, str) else name[0]: kind for kind, name in found.items()}


def tiny(name: str, **changes: Any) -> Any:
    """A model of a class of transformers with random weights, tiny. Raises what its config or class raises."""
    import torch
    import transformers

    kind = getattr(transformers, name)
    config = shrunk(name, **changes)
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in kind(config).parameters())
    if weights > LARGEST:
        raise ValueError(
            f"{weights / 1e6:.0f} million weights: its config names sizes that are not in the table"
        )
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    return model


def shrunk(name: str, **changes: Any) -> Any:
    """The tiny config of a class."""
    import transformers

    return _shrunk(getattr(transformers, name).config_class, EXTRA.get(name, {}) | changes)


LATENT = ("LongcatFlashForCausalLM", "AXK1ForCausalLM", "AXK2ForCausalLM", "BailingHybridForCausalLM",
          "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM")  # fmt: skip
"""Latent attention has as many key heads as heads."""
EXTRA: dict[str, dict[str, Any]] = {
    "Mamba2ForCausalLM": {"num_heads": 8, "head_dim": 16, "expand": 2, "n_groups": 2},
    "Dots1ForCausalLM": {"n_shared_experts": 1},
    "FalconH1ForCausalLM": {
        "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 32,
    },
    **{name: {"num_key_value_heads": 4} for name in LATENT},
    "CodeGenForCausalLM": {"rotary_dim": 8},
    "CTRLLMHeadModel": {"dff": 96},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"]},
    "Dots3NoteForCausalLM": {"num_key_value_heads": 4},
    "ZayaForCausalLM": {"num_experts_per_tok": 1},
    "ReformerModelWithLMHead": {"is_decoder": True},
    "BltForCausalLM": {"num_hidden_layers": 0},
}  # fmt: skip
"""What some need besides, so that they build at all."""


def _shrunk(kind: Any, changes: dict[str, Any]) -> Any:
    """A config with every size that it knows by one of the names of `SIZES` made small."""
    try:
        default = kind()
    except Exception:  # some check the sizes against each other before they can be told
        default = None
    known = set(inspect.signature(kind.__init__).parameters) | set(
        vars(default) if default is not None else ()
    )
    known |= {key for base in kind.__mro__ for key in getattr(base, "__annotations__", {})}
    sizes = {key: value for key, value in SIZES.items() if key in known} | changes
    for key, value in _lists(default, sizes):
        sizes.setdefault(key, value)
    for key, part in (getattr(kind, "sub_configs", None) or {}).items():
        if key in known and key not in sizes and hasattr(part, "__init__") and part.__name__ != "AutoConfig":
            sizes[key] = _shrunk(part, {}).to_dict()
    return kind(**sizes)


def _lists(default: Any, sizes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of the default config that hold one value a layer, cut to the layers that are left."""
    layers = next(
        (sizes[key] for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if key in sizes), 2
    )
    for key, value in vars(default).items() if default is not None else ():
        if (
            isinstance(value, list)
            and len(value) > layers
            and ("layer" in key or "block" in key)
            and key in ("layer_types", "layers_block_type", "attention_layers", "mlp_layer_types")
        ):
            kinds = list(dict.fromkeys(value))
            yield key.lstrip("_"), (kinds + value)[:layers]


def save(model: Any, folder: Path, tokenizer: bool = True) -> None:
    """In Hugging Face layout, with the embedded model's tokenizer."""
    from bntools.core.text.documents import tiny_model_dir

    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json") if tokenizer else ():
        (folder / name).write_bytes((tiny_model_dir() / name).read_bytes())
