"""The shape of a model from its config.json: one function a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bntools.core.architecture.shapes.attention import attention_part
from bntools.core.architecture.shapes.config import Config, text_part
from bntools.core.architecture.shapes.families import ALIASES, FAMILIES, LAYER, Traits, decides
from bntools.core.architecture.shapes.mlp import mlp_part
from bntools.core.architecture.shapes.shape import LayerShape, LinearShape, ModelShape
from bntools.core.errors import bad_input, usage

HIDDEN = ("hidden_size", "n_embd", "d_model", "n_embed")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def model_shape(
    values: Mapping[str, Any], label: str = "config.json", family: str | None = None
) -> ModelShape:
    """The shape that a config describes, read as `family` where its own model_type is not known.

    Raises BnError: exit 3 for an unknown architecture or a missing or impossible size, 2 for an unknown family.
    """
    values, inside = text_part(values)
    config = Config(values, label)
    kind, traits = _traits(config, family)
    hidden, vocabulary = config.size(*HIDDEN), config.size("vocab_size")
    count = config.size(*LAYERS)
    layers = tuple(_layer(config, traits, hidden, index) for index in range(count))
    notes = (f"only {inside} of the config is counted",) if inside else ()
    tied = config.flag("tie_word_embeddings", default=traits.tied)
    embeddings, outer, head, other = _ends(config, traits, kind, (hidden, vocabulary, tied))
    longest = config.get(*LONGEST)
    return ModelShape(
        kind, hidden, vocabulary, layers, embeddings, outer, head, tied, other,
        longest if isinstance(longest, int) and longest > 0 else None,
        str(config.get("dtype", "torch_dtype", default="float32")), notes,
    )  # fmt: skip


def _traits(config: Config, family: str | None) -> tuple[str, Traits]:
    own = str(config.get("model_type", default=""))
    if family is not None:
        if family not in FAMILIES:
            raise usage(f"--as {family}: not one of the known architectures", ", ".join(FAMILIES))
        return family, FAMILIES[family]
    name = ALIASES.get(own, own)
    if name not in FAMILIES:
        lacks = [keys[0] for keys in (HIDDEN, LAYERS, ("num_attention_heads",), ("intermediate_size",), ("vocab_size",))
                 if not config.has(*keys)]  # fmt: skip
        what = f"; as llama it lacks {', '.join(lacks)}" if lacks else ""
        raise bad_input(f"{config.label}: unknown architecture {own or 'without model_type'}{what}",
                        "--as llama, or another that computes alike")  # fmt: skip
    return name, FAMILIES[name]


def _layer(config: Config, traits: Traits, hidden: int, index: int) -> LayerShape:
    projections, attention, others = attention_part(config, traits, hidden, index)
    linears, more = mlp_part(config, traits, hidden, index)
    norms = layer_norms(config, traits)
    return LayerShape(
        (*projections, *linears), attention, others + more + norms * hidden * traits.norm, norms * hidden
    )


def layer_norms(config: Config, traits: Traits) -> int:
    """Norms of a layer, less where attention and MLP read the same normed input."""
    kind = config.get("model_type")
    if kind == "stablelm" and config.flag("use_parallel_residual"):
        return 1
    if kind == "falcon":
        if not config.flag("parallel_attn", default=True):
            return 2
        new = config.flag("new_decoder_architecture")
        return config.get("num_ln_in_parallel_attn", default=2 if new else 1)
    return traits.norms


def _ends(
    config: Config, traits: Traits, kind: str, sizes: tuple[int, int, bool]
) -> tuple[tuple[tuple[int, int], ...], tuple[LinearShape, ...], tuple[LinearShape, ...], int]:
    """Embeddings, linears beside the layers, the head, and parameters of the norms there."""
    hidden, vocabulary, _ = sizes
    width = config.size("word_embed_proj_dim", default=hidden) if kind == "opt" else hidden
    embeddings = [(vocabulary, width)]
    if traits.positions:
        rows = config.size(traits.positions, "max_position_embeddings") + traits.offset
        embeddings.append((rows, hidden))
    if kind == "bert":
        embeddings.append((config.size("type_vocab_size", default=2), hidden))
    outer = []
    if width != hidden:
        outer = [LinearShape("project_in", width, hidden), LinearShape("project_out", hidden, width)]
    head = [LinearShape("lm_head", width, vocabulary, decides(config, traits.head_bias))]
    other = hidden * traits.norm * (traits.final_norm + traits.embedding_norm)
    if kind == "bert":
        head.insert(0, LinearShape("transform", hidden, hidden, True))
        other += hidden * LAYER
    if kind == "opt" and not config.flag("do_layer_norm_before", default=True):
        other -= hidden * traits.norm
    return tuple(embeddings), tuple(outer), tuple(head), other
