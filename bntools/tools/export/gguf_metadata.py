"""The metadata of a GGUF file: sizes of the model, rotary scaling, tokenizer."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from bntools.core.architecture import linears
from bntools.core.errors import usage
from bntools.core.model.model import Model

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}
_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5


class Value(NamedTuple):
    """A metadata value and its GGUF type: uint32, float32, bool, string or array."""

    kind: str
    content: Any

    def add(self, writer: Any, key: str) -> None:
        getattr(writer, f"add_{self.kind}")(key, self.content)


def arch_of(config: dict[str, Any]) -> str:
    """The GGUF architecture of a config; BnError (exit 2) for one that is not written."""
    name = config.get("model_type")
    arch = ARCHITECTURES.get(str(name))
    if arch is None:
        raise usage(f"--to gguf: {name} models are not written", f"written are {', '.join(ARCHITECTURES)}")
    return arch


def metadata(model: Model, kinds: list[str]) -> dict[str, Value]:
    """Every key of the file, in order. kinds: the types of its tensors."""
    config, arch = linears.hf_config(model.config), arch_of(model.config)
    matrices = Counter(kind for kind in kinds if kind != "F32")
    common = matrices.most_common(1)[0][0] if matrices else "F32"
    values = {
        "general.type": Value("string", "model"),
        "general.name": Value("string", str(model.label).rstrip("/").rpartition("/")[2] or "model"),
        "general.file_type": Value("uint32", _FILE_TYPES[common]),
        "general.quantization_version": Value("uint32", 2),
    }
    values |= {f"{arch}.{key}": value for key, value in _sizes(config).items()}
    values |= {f"{arch}.{key}": value for key, value in _rope(config).items()}
    return values | tokenizer(model, int(config.vocab_size))


def _sizes(config: Any) -> dict[str, Value]:
    if getattr(config, "hidden_act", "silu") != "silu":
        raise usage(f"--to gguf: activation {config.hidden_act!r} is not written", "written is silu")
    if config.model_type == "llama" and (config.attention_bias or config.mlp_bias):
        raise usage("--to gguf: a llama model with biases is not written", "--to hf")
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings:
        raise usage("--to gguf: attention in a sliding window is not written", "--to hf")
    size = head_size(config)
    counts = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": size, "attention.value_length": size, "rope.dimension_count": size,
        "vocab_size": config.vocab_size,
    }  # fmt: skip
    values = {key: Value("uint32", int(value)) for key, value in counts.items()}
    return values | {"attention.layer_norm_rms_epsilon": Value("float32", float(config.rms_norm_eps))}


def head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: Any) -> dict[str, Value]:
    """Rotary base and scaling; Llama 3's scaling is a tensor, see `rope_factors`."""
    rope = dict(config.rope_parameters or {})
    kind = rope.get("rope_type", "default")
    values = {"rope.freq_base": Value("float32", float(rope.get("rope_theta", 10000.0)))}
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise usage("--to gguf: partial rotary embeddings are not written", "--to hf")
    if kind in ("default", "llama3"):
        return values
    values["rope.scaling.type"] = Value("string", kind)
    values["rope.scaling.factor"] = Value("float32", float(rope["factor"]))
    if kind == "yarn" and set(rope) <= {
        "rope_theta",
        "rope_type",
        "factor",
        "original_max_position_embeddings",
    }:
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        return values | {"rope.scaling.original_context_length": Value("uint32", int(original))}
    if kind != "linear":
        raise usage(f"--to gguf: rotary scaling {kind!r} of this form is not written", "--to hf")
    return values


def rope_factors(config: Any) -> np.ndarray | None:
    """Llama 3's divisors of the rotary frequencies [head_dim / 2] float32; None for other models.

    A wavelength under original / high keeps its frequency, one over original / low is slowed by `factor`, between
    them the inverse is interpolated (as Llama 3.1's release defines it).
    """
    rope = dict(config.rope_parameters or {})
    if rope.get("rope_type") != "llama3":
        return None
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    count = head_size(config) // 2
    wavelength = 2 * math.pi * rope["rope_theta"] ** (np.arange(count) / count)
    smooth = (rope["original_max_position_embeddings"] / wavelength - low) / (high - low)
    smooth = np.clip(smooth, 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def tokenizer(model: Model, size: int) -> dict[str, Value]:
    """Keys of a byte-level BPE tokenizer; none for another kind, which `writes_tokenizer` tells."""
    table = _table(model)
    if table is None:
        return {}
    words: list[str] = [f"[PAD{index}]" for index in range(size)]
    types = [_UNUSED] * size
    for word, index in table["model"]["vocab"].items():
        words[index], types[index] = word, _NORMAL
    for token in table.get("added_tokens") or []:
        kind = _CONTROL if token.get("special") else _USER
        words[token["id"]], types[token["id"]] = token["content"], kind
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in table["model"]["merges"]]
    values = {
        "tokenizer.ggml.model": Value("string", "gpt2"),
        "tokenizer.ggml.pre": Value("string", pre_tokenizer(table)),
        "tokenizer.ggml.tokens": Value("array", words),
        "tokenizer.ggml.token_type": Value("array", types),
        "tokenizer.ggml.merges": Value("array", merges),
    }
    return values | _special(model, table, words)


def writes_tokenizer(model: Model) -> bool:
    """Whether the tokenizer is of the one kind that is written, byte-level BPE."""
    return _table(model) is not None


def _table(model: Model) -> dict[str, Any] | None:
    text = model.files.get("tokenizer.json")
    if text is None:
        return None
    table = json.loads(text)
    splitters = _splitters(table)
    plain = table.get("model", {}).get("type") == "BPE" and any(
        part["type"] == "ByteLevel" for part in splitters
    )
    return table if plain else None


def _splitters(table: dict[str, Any]) -> list[dict[str, Any]]:
    pre = table.get("pre_tokenizer") or {}
    return pre.get("pretokenizers", [pre]) if pre.get("type") else []


def pre_tokenizer(table: dict[str, Any]) -> str:
    """llama.cpp's name for how text is split before the merges; `default` where none is known to be the same."""
    parts = _splitters(table)
    patterns = [part["pattern"].get("Regex", "") for part in parts if part["type"] == "Split"]
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if (
        kinds == ["Digits", "ByteLevel"]
        and parts[0].get("individual_digits")
        and parts[1].get("use_regex", True)
    ):
        return "smollm"
    if len(patterns) == 1 and "(?i:'s|'t|'re|'ve|'m|'ll|'d)" in patterns[0]:
        return "llama-bpe" if r"\p{N}{1,3}" in patterns[0] else "qwen2"
    return "default"


def _special(model: Model, table: dict[str, Any], words: list[str]) -> dict[str, Value]:
    settings = json.loads(model.files.get("tokenizer_config.json", b"{}"))
    ids = {word: index for index, word in enumerate(words)}
    values: dict[str, Value] = {}
    for key, gguf in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        word = settings.get(f"{key}_token")
        word = word.get("content") if isinstance(word, dict) else word
        index = ids.get(word) if word else model.config.get(f"{key}_token_id")
        index = index[0] if isinstance(index, list) else index
        if isinstance(index, int) and 0 <= index < len(words):
            values[f"tokenizer.ggml.{gguf}_token_id"] = Value("uint32", index)
    values["tokenizer.ggml.add_bos_token"] = Value("bool", _starts_with_special(table.get("post_processor")))
    chat = model.files.get("chat_template.jinja", b"").decode() or settings.get("chat_template")
    if isinstance(chat, str) and chat:
        values["tokenizer.chat_template"] = Value("string", chat)
    return values


def _starts_with_special(post: dict[str, Any] | None) -> bool:
    if not post:
        return False
    if post.get("type") == "Sequence":
        return any(_starts_with_special(part) for part in post["processors"])
    return post.get("type") == "TemplateProcessing" and "SpecialToken" in post["single"][0]
