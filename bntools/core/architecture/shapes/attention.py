"""The attention of a layer: projections, heads and window."""

from __future__ import annotations

from bntools.core.architecture.shapes.config import Config
from bntools.core.architecture.shapes.families import Traits, decides
from bntools.core.architecture.shapes.shape import AttentionShape, Latent, LinearShape
from bntools.core.errors import bad_input

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads")
Part = tuple[tuple[LinearShape, ...], AttentionShape, int]


def attention_part(config: Config, traits: Traits, hidden: int, index: int) -> Part:
    """Projections, attention and other parameters (norms of queries and keys, sinks) of layer `index`."""
    window = window_of(config, traits, index)
    heads = config.size(*HEADS)
    if traits.latent:
        return _latent(config, hidden, heads, window)
    kv_heads = _kv_heads(config, heads)
    if heads % kv_heads:
        raise bad_input(f"{config.label}: {heads} heads do not divide into {kv_heads} of keys and values")
    width = _head_width(config, hidden, heads)
    qkv, out = decides(config, traits.qkv_bias), decides(config, traits.o_bias)
    linears = (
        LinearShape("q_proj", hidden, heads * width, qkv),
        LinearShape("k_proj", hidden, kv_heads * width, qkv),
        LinearShape("v_proj", hidden, kv_heads * width, qkv),
        LinearShape("o_proj", heads * width, hidden, out),
    )
    other = _norms(config, traits, heads, kv_heads, width=width) + (heads if traits.sinks else 0)
    return linears, AttentionShape(heads, kv_heads, width, width, window), other


def window_of(config: Config, traits: Traits, index: int) -> int | None:
    """Tokens that a query of layer `index` sees at most, None where it sees all."""
    window = config.get("sliding_window", "window_size")
    kinds = config.texts("layer_types") or config.texts("attention_layers")
    if index < len(kinds):
        local = kinds[index] in ("sliding_attention", "local", "chunked_attention")
        if local and not isinstance(window, int):
            window = config.size("attention_chunk_size") if "chunked" in kinds[index] else None
        return window if local and isinstance(window, int) and window > 0 else None
    if not isinstance(window, int) or isinstance(window, bool) or window <= 0:
        return None
    if config.has("use_sliding_window"):
        first = config.get("max_window_layers", default=0)
        return window if config.flag("use_sliding_window") and index >= first else None
    every = config.get("sliding_window_pattern", default=traits.window)
    if every == "all":
        return window
    if every == "even":
        return window if index % 2 == 0 else None
    if isinstance(every, int) or (isinstance(every, str) and every.isdigit()):
        return window if (index + 1) % int(every) else None
    if isinstance(every, str) and every and set(every) <= {"L", "G"}:
        return window if every[index % len(every)] == "L" else None
    return None


def _kv_heads(config: Config, heads: int) -> int:
    if config.get("model_type") == "falcon" and not config.flag("new_decoder_architecture"):
        return 1 if config.flag("multi_query", default=True) else heads
    if config.get("model_type") == "gpt_bigcode":
        return 1 if config.flag("multi_query", default=True) else heads
    nested = config.get("attn_config")
    if isinstance(nested, dict) and isinstance(nested.get("kv_n_heads"), int):
        return nested["kv_n_heads"]
    return config.size(*KV_HEADS, default=heads)


def _head_width(config: Config, hidden: int, heads: int) -> int:
    if config.has("head_dim"):
        return config.size("head_dim")
    if hidden % heads:
        raise bad_input(f"{config.label}: hidden size {hidden} does not divide into {heads} heads, "
                        "and there is no head_dim")  # fmt: skip
    return hidden // heads


def _norms(config: Config, traits: Traits, heads: int, kv_heads: int, *, width: int) -> int:
    """Parameters of the norms of queries and keys."""
    kind = config.get("model_type")
    if kind == "stablelm":
        return (heads + kv_heads) * width if config.flag("qk_layernorm") else 0
    if kind == "phi" or (kind == "persimmon" and traits.qk_norm):
        default = kind == "persimmon"
        return 4 * width if config.flag("qk_layernorm", default=default) else 0
    if traits.qk_norm == "use_qk_norm":
        by_head = width if kind == "glm4_moe" else 0
        full = 2 * by_head or (heads + kv_heads) * width
        return full if config.flag("use_qk_norm") else 0
    if traits.qk_norm == "full":
        return (heads + kv_heads) * width
    return 2 * width if traits.qk_norm == "head" else 0


def _latent(config: Config, hidden: int, heads: int, window: int | None) -> Part:
    """Multi-head latent attention of DeepSeek-V2 (arXiv 2405.04434, section 2.1)."""
    rank, rope = config.size("kv_lora_rank"), config.size("qk_rope_head_dim")
    nope, value = config.size("qk_nope_head_dim"), config.size("v_head_dim")
    queries = config.get("q_lora_rank")
    bias = config.flag("attention_bias")
    wide = heads * (nope + rope)
    if queries is None:
        first, other = (LinearShape("q_proj", hidden, wide),), rank
    else:
        queries = config.size("q_lora_rank")
        first = (LinearShape("q_a_proj", hidden, queries, bias), LinearShape("q_b_proj", queries, wide))
        other = rank + queries
    linears = (
        *first,
        LinearShape("kv_a_proj", hidden, rank + rope, bias),
        LinearShape("kv_b_proj", rank, heads * (nope + value)),
        LinearShape("o_proj", heads * value, hidden, bias),
    )
    shape = AttentionShape(heads, heads, nope + rope, value, window, Latent(rank, rope, nope))
    return linears, shape, other
