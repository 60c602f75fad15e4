"""What config.json does not say of an architecture: gates, biases, norms, position tables, what is tied."""

from __future__ import annotations

from typing import NamedTuple

from bntools.core.architecture.shapes.config import Config

RMS, LAYER, UNSCALED = 1, 2, 0  # parameters of a norm per element


class Traits(NamedTuple):
    """Facts of one architecture. A text names the key of config.json that decides; `!key` is its negation.

    norms: how many a layer has. qk_norm: width of the norms of queries and keys, `head` or `full`, if any.
    positions: key that gives the rows of a table of positions, offset more of them. window: how layers alternate
    where layer_types does not say: `all`, `even` layers, or all but every n-th, as text. experts: which layers have
    them. inner_factor: width of the MLP over the model's where the config leaves it open. latent: MLA.
    """

    gated: bool = True
    norm: int = RMS
    norms: int = 2
    final_norm: bool = True
    qkv_bias: bool | str = "attention_bias"
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = "mlp_bias"
    head_bias: bool | str = False
    qk_norm: str = ""
    positions: str = ""
    offset: int = 0
    tied: bool = False
    window: str = ""
    experts: str = ""
    router_bias: bool = False
    expert_bias: bool = False
    sinks: bool = False
    embedding_norm: bool = False
    inner_factor: int = 0
    latent: bool = False


_PLAIN = Traits(qkv_bias=False, o_bias=False, mlp_bias=False)
_GPT = Traits(gated=False, norm=LAYER, qkv_bias=True, o_bias=True, mlp_bias=True, tied=True, inner_factor=4)

FAMILIES: dict[str, Traits] = {
    "llama": Traits(),
    "mistral": _PLAIN._replace(window="all"),
    "ministral": _PLAIN._replace(window="all"),
    "qwen2": _PLAIN._replace(qkv_bias=True),
    "qwen3": Traits(qk_norm="head"),
    "gemma": Traits(tied=True, mlp_bias=False),
    "gemma2": Traits(tied=True, mlp_bias=False, norms=4, window="even"),
    "gemma3_text": Traits(tied=True, mlp_bias=False, norms=4, qk_norm="head", window="6"),
    "phi": Traits(gated=False, norm=LAYER, norms=1, qkv_bias=True, o_bias=True, mlp_bias=True, head_bias=True),
    "phi3": _PLAIN._replace(window="all"),
    "gpt2": _GPT._replace(positions="n_positions"),
    "gpt_neo": _GPT._replace(positions="max_position_embeddings", qkv_bias=False, window="attention_layers"),
    "gpt_neox": _GPT._replace(tied=False, qkv_bias="attention_bias", o_bias="attention_bias"),
    "gptj": _GPT._replace(tied=False, norms=1, qkv_bias=False, o_bias=False, head_bias=True),
    "codegen": _GPT._replace(tied=False, norms=1, qkv_bias=False, o_bias=False, head_bias=True),
    "gpt_bigcode": _GPT._replace(positions="n_positions"),
    "opt": _GPT._replace(
        positions="max_position_embeddings", offset=2, qkv_bias="enable_bias", o_bias="enable_bias",
        mlp_bias="enable_bias", inner_factor=0,
    ),
    "bloom": _GPT._replace(embedding_norm=True),
    "mpt": _GPT._replace(
        norm=RMS, qkv_bias=False, o_bias=False, mlp_bias=False, inner_factor=0,
    ),
    "falcon": _GPT._replace(qkv_bias="bias", o_bias="bias", mlp_bias="bias"),
    "biogpt": _GPT._replace(positions="max_position_embeddings", offset=2, inner_factor=0),
    "xglm": _GPT._replace(inner_factor=0),
    "stablelm": Traits(norm=LAYER, qkv_bias="use_qkv_bias", o_bias=False, mlp_bias=False),
    "starcoder2": Traits(
        gated=False, norm=LAYER, qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias", tied=True,
        window="all",
    ),
    "persimmon": Traits(gated=False, norm=LAYER, qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm="layer"),
    "nemotron": Traits(gated=False, norm=LAYER),
    "arcee": Traits(gated=False),
    "olmo": Traits(norm=UNSCALED, mlp_bias=False),
    "olmo2": Traits(qk_norm="full", mlp_bias=False),
    "olmo3": Traits(qk_norm="full", mlp_bias=False, window="4"),
    "cohere": Traits(norms=1, tied=True, mlp_bias=False, qk_norm="use_qk_norm"),
    "cohere2": Traits(norms=1, tied=True, mlp_bias=False, window="4"),
    "granite": Traits(),
    "glm": Traits(o_bias=False, mlp_bias=False),
    "glm4": Traits(o_bias=False, mlp_bias=False, norms=4),
    "helium": Traits(o_bias=False),
    "smollm3": Traits(tied=True),
    "seed_oss": Traits(o_bias="attention_out_bias"),
    "exaone4": _PLAIN._replace(qk_norm="head", window="sliding_window_pattern"),
    "ernie4_5": Traits(qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias", tied=True),
    "hunyuan_v1_dense": Traits(qk_norm="head"),
    "apertus": Traits(gated=False, qk_norm="head"),
    "vaultgemma": Traits(tied=True, mlp_bias=False, norms=2, window="even"),
    "mixtral": _PLAIN._replace(experts="all", window="all"),
    "qwen2_moe": _PLAIN._replace(qkv_bias=True, experts="sparse_step"),
    "qwen3_moe": Traits(qk_norm="head", experts="sparse_step", mlp_bias=False),
    "olmoe": Traits(qk_norm="full", experts="all", mlp_bias=False),
    "granitemoe": Traits(experts="all"),
    "granitemoeshared": Traits(experts="all"),
    "phimoe": Traits(norm=LAYER, experts="all", mlp_bias=False, head_bias="lm_head_bias"),
    "gpt_oss": Traits(
        qkv_bias="attention_bias", o_bias="attention_bias", experts="all", router_bias=True, expert_bias=True,
        sinks=True, window="even",
    ),
    "glm4_moe": Traits(qk_norm="use_qk_norm", o_bias=False, experts="first_dense", mlp_bias=False),
    "deepseek_v2": Traits(experts="first_dense", mlp_bias=False, latent=True),
    "deepseek_v3": Traits(experts="first_dense", mlp_bias=False, latent=True),
    "solar_open": Traits(o_bias=False, experts="first_dense", mlp_bias=False),
    "mellum": Traits(qk_norm="head", experts="all", mlp_bias=False),
    "flex_olmo": Traits(qk_norm="full", experts="all", mlp_bias=False),
    "minimax_m2": _PLAIN._replace(qk_norm="full", experts="all"),
    "granite_swa": Traits(sinks=True),
    "granitemoe_swa": Traits(experts="all", sinks=True),
    "glm4_moe_lite": Traits(experts="first_dense", mlp_bias=False, latent=True),
    "youtu": Traits(mlp_bias="mlp_bias", latent=True, tied=True),
    "minicpm3": Traits(mlp_bias=False, latent=True),
    "hyperclovax": Traits(norms=4),
    "jais2": Traits(gated=False, norm=LAYER),
    "nanochat": Traits(gated=False, norm=UNSCALED, mlp_bias=False, o_bias="attention_bias"),
    "internlm3": Traits(qkv_bias="qkv_bias", o_bias="bias", mlp_bias="bias"),
    "iquestcoder": Traits(),
    "cwm": _PLAIN,
    "ministral3": _PLAIN._replace(window="all"),
    "bert": Traits(
        gated=False, norm=LAYER, qkv_bias=True, o_bias=True, mlp_bias=True, head_bias=True, final_norm=False,
        positions="max_position_embeddings", tied=True, embedding_norm=True,
    ),
}  # fmt: skip
ALIASES = {"gemma3": "gemma3_text"}


def decides(config: Config, trait: bool | str, default: bool = False) -> bool:
    """A trait that a key of config.json decides."""
    if isinstance(trait, bool):
        return trait
    return config.flag(trait, default=_TRUE.get((config.get("model_type"), trait), default))


_TRUE = {
    ("gpt_neox", "attention_bias"): True, ("opt", "enable_bias"): True, ("starcoder2", "use_bias"): True,
    ("gpt_oss", "attention_bias"): True, ("cohere", "attention_bias"): False,
}  # fmt: skip
