"""A GGUF file as a Hugging Face checkpoint: its config, its tokenizer, its weights dequantized one by one."""

from __future__ import annotations

import json
import math
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bntools.core.architecture import linears
from bntools.core.artifact import dtypes
from bntools.core.artifact.header import Entry
from bntools.core.datasets.cache import sha256_file
from bntools.core.errors import BnError, bad_input, require
from bntools.core.foreign import gguf_layout

if TYPE_CHECKING:
    import numpy as np
    import torch

ARCHITECTURES = ("gemma2", "gemma3", "gpt2", "llama", "phi3", "qwen2", "qwen3")
CHUNK = 1 << 24  # weights dequantized at once
_MODEL_TYPES = {"gemma3": "gemma3_text"}
_KEYS = {  # what the library's own table leaves to defaults of the config class
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "llama": {"attention.key_length": "head_dim"},
    "qwen3": {"attention.key_length": "head_dim"},
}
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_PLAIN = {"F16": "float16", "F32": "float32", "BF16": "bfloat16"}
_ONE_DIGIT_A_TOKEN = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_DAMAGE = (ValueError, IndexError, KeyError, OverflowError, TypeError, RecursionError, MemoryError)


class GGUFModel:
    """A GGUF model under its Hugging Face names; nothing is dequantized before `tensor` asks for it.

    dtype: type of weights stored quantized; the others keep theirs. In float16, the default, a Q4_1 or
    K-quant weight (scale times code plus offset) is rounded to 11 bits; float32 holds it as it is.
    Raises BnError: exit 3 for a file that is no GGUF, truncated, damaged, of an architecture outside
    `ARCHITECTURES` or with tensors that it does not have; exit 5 without the `gguf` package.
    """

    def __init__(self, path: Path, dtype: torch.dtype | None = None) -> None:
        import torch

        self.path = path
        self.dtype = dtype or torch.float16
        self._reader = _read(path)
        self.architecture = str(self._value("general.architecture") or "(none)")
        if self.architecture not in ARCHITECTURES:
            read = ", ".join(ARCHITECTURES)
            raise self._bad(f"architecture {self.architecture!r} is not read", f"read are {read}")
        self._stored = {tensor.name: tensor for tensor in self._reader.tensors}
        skeleton = _skeleton(self._settings(), path)
        self._config = skeleton.config
        self._map(skeleton)
        kind, main = type(skeleton).__name__, self._dtype_of(self._stored["token_embd.weight"])
        self.config = self._config.to_diff_dict() | {
            "architectures": [kind],
            "dtype": str(main).removeprefix("torch."),
        }

    def names(self) -> list[str]:
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def nbytes(self) -> int:
        """Bytes the tensors take in the file."""
        return sum(int(tensor.n_bytes) for tensor in self._stored.values())

    def sha256(self) -> str:
        return sha256_file(self.path)

    def tensor(self, name: str) -> torch.Tensor:
        """One weight, dequantized and in the layout of Hugging Face."""
        import torch
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        entry, stored = self.entries[name], self._stored[self._home[name]]
        weights = _dequantize(stored, entry.dtype)
        if stored.name != "output.weight":
            kind = TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)
            weights = kind(self._config.to_dict()).process(weights=weights, name=stored.name).weights
        if weights.shape != entry.shape:
            raise self._wrong_shape(stored.name, weights.shape, entry.shape)
        return torch.from_numpy(weights.copy(order="C")).to(dtypes.torch_dtype(entry.dtype))

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Tokenizer, its settings, generation settings and chat template, as far as the file has them."""
        ids = {key: self.config[key] for key in _TOKEN_IDS if self.config.get(key) is not None}
        files = {"generation_config.json": json.dumps(ids, indent=2).encode() + b"\n"}
        if self._value("tokenizer.ggml.model") in (None, "none", "no_vocab"):
            return files
        return files | self._tokenizer_files()

    def _bad(self, what: str, hint: str = "") -> BnError:
        return bad_input(f"{self.path}: {what}", hint)

    def _wrong_shape(self, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> BnError:
        return self._bad(f"tensor {name!r} has shape {list(shape)}, expected {list(expected)}")

    def _value(self, key: str) -> Any:
        """A metadata value, None where the file does not have it."""
        field = self._reader.fields.get(key)
        try:
            return None if field is None else field.contents()
        except _DAMAGE as error:
            raise self._bad(f"damaged metadata {key}: {error}") from None

    def _settings(self) -> dict[str, Any]:
        """Keyword settings of the transformers config, by the library's table of names."""
        from transformers.integrations import GGUF_CONFIG_MAPPING

        arch, embedding = self.architecture, self._stored.get("token_embd.weight")
        layers = self._value(f"{arch}.block_count")
        if embedding is None or not isinstance(layers, int) or not 0 < layers <= len(self._stored):
            raise self._bad(f"no token_embd.weight, or {layers} blocks in {len(self._stored)} tensors")
        settings: dict[str, Any] = dict.fromkeys(_TOKEN_IDS)  # not the ids of the config class's own model
        settings["model_type"] = _MODEL_TYPES.get(arch, arch)
        tables = {
            f"{arch}.": GGUF_CONFIG_MAPPING[arch] | _KEYS.get(arch, {}),
            "tokenizer.": GGUF_CONFIG_MAPPING["tokenizer"],
        }
        for prefix, table in tables.items():
            for key, name in table.items():
                value = self._value(prefix + key) if name else None
                if value is not None:
                    settings[name] = value
        if "num_attention_heads" in settings:
            settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
        settings["vocab_size"] = int(embedding.shape[-1])
        settings["tie_word_embeddings"] = "output.weight" not in self._stored
        return settings | self._rope(float(settings.get("rope_theta", 10000.0)))

    def _rope(self, theta: float) -> dict[str, Any]:
        """Scaling of the rotary embedding; what we cannot express is refused, not dropped."""
        prefix = f"{self.architecture}.rope.scaling"
        kind, factor = self._value(f"{prefix}.type") or "none", self._value(f"{prefix}.factor")
        rope: dict[str, Any] = {"rope_theta": theta, "rope_type": kind, "factor": factor}
        if "rope_freqs.weight" in self._stored:
            factors = _dequantize(self._stored.pop("rope_freqs.weight"), "F32")
            if factors.max() == 1:
                return {}
            return {"rope_parameters": rope | _llama3_rope(factors, theta, str(self.path))}
        if kind == "none":
            return {}
        if kind == "yarn":
            rope["original_max_position_embeddings"] = self._value(f"{prefix}.original_context_length")
        elif kind != "linear":
            raise self._bad(f"rotary scaling {kind!r} is not read", "read are linear, yarn, Llama 3's")
        return {"rope_parameters": rope}

    def _map(self, skeleton: Any) -> None:
        """Pair the file's tensors with the model's parameters, by the gguf package's table of names."""
        gguf = require("gguf", "gguf")
        wanted = {
            name: tuple(value.shape) for name, value in skeleton.named_parameters(remove_duplicate=False)
        }
        arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture)
        table = gguf.get_tensor_name_map(arch, int(self._config.num_hidden_layers))
        homes = {table.get_name(name, (".weight", ".bias")): name for name in wanted}
        self._home: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        position = 0
        for stored in self._stored.values():
            name, shape = homes.get(stored.name), tuple(int(n) for n in reversed(stored.shape))
            if name is None:
                raise self._bad(f"tensor {stored.name!r} has no place in a {self.architecture} model")
            if sorted(shape) != sorted(wanted[name]):
                raise self._wrong_shape(stored.name, shape, wanted[name])
            dtype = dtypes.name_of(self._dtype_of(stored))
            size = math.prod(shape) * dtypes.torch_dtype(dtype).itemsize
            self._home[name] = stored.name
            self.entries[name] = Entry(name, dtype, wanted[name], position, position + size)
            position += size
        tied = {"lm_head.weight"} if self._config.tie_word_embeddings else set()
        missing = [name for name in wanted if name not in self.entries and name not in tied]
        if missing:
            raise self._bad(f"{len(missing)} tensors are missing, the first is {missing[0]!r}")

    def _dtype_of(self, stored: Any) -> torch.dtype:
        import torch

        name = stored.tensor_type.name
        if name in _PLAIN:
            return getattr(torch, _PLAIN[name])
        if name[0] in "QTM" or name.startswith("IQ"):
            return self.dtype
        raise self._bad(f"tensor {stored.name!r} holds {name}, which is no weight type")

    def _tokenizer_files(self) -> dict[str, bytes]:
        """The tokenizer as transformers rebuilds it, in a folder with nothing else it could pick up.

        Deviation: where the file names a pre-tokenizer that splits digits (`smollm` and its like), digits are
        split first; transformers 5.23 leaves that out and cuts runs of spaces before a digit differently.
        """
        import transformers
        from tokenizers import pre_tokenizers

        with tempfile.TemporaryDirectory() as folder:
            os.symlink(self.path.absolute(), f"{folder}/model.gguf")
            try:
                kind = transformers.PreTrainedTokenizerFast
                tokenizer = kind.from_pretrained(folder, gguf_file="model.gguf", local_files_only=True)
            except Exception as error:  # a damaged vocabulary makes the library raise anything
                raise self._bad(f"no tokenizer can be built: {_first_line(error)}") from error
            if self._value("tokenizer.ggml.pre") in _ONE_DIGIT_A_TOKEN:
                backend, digits = tokenizer.backend_tokenizer, pre_tokenizers.Digits(individual_digits=True)
                backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
            tokenizer.model_max_length = self._config.max_position_embeddings
            saved = Path(folder) / "saved"
            tokenizer.save_pretrained(saved)
            files = {child.name: child.read_bytes() for child in sorted(saved.iterdir())}
        settings = json.loads(files["tokenizer_config.json"])
        for key in ("is_local", "local_files_only", "name_or_path"):
            settings.pop(key, None)
        return files | {"tokenizer_config.json": json.dumps(settings, indent=2).encode() + b"\n"}


def _read(path: Path) -> Any:
    """The gguf package's reader: metadata parsed, tensors as views of a memory map."""
    gguf = require("gguf", "gguf")
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise bad_input(f"cannot read {path}: {error.strerror}") from None
    if magic != b"GGUF":
        raise bad_input(f"{path} is not a GGUF file", "its first four bytes are not GGUF")
    gguf_layout.check(path, gguf.GGML_QUANT_SIZES)
    try:
        reader = gguf.GGUFReader(path)
    except _DAMAGE as error:
        beyond = isinstance(error, IndexError) or "reshape" in str(error)
        why = "it ends before its last table or tensor" if beyond else str(error)[:120]
        raise bad_input(f"{path} is truncated or damaged: {why}", "fetch it again") from None
    if reader.byte_order != "I":
        raise bad_input(f"{path} has the other byte order", "convert it on a machine of this byte order")
    return reader


def _skeleton(settings: dict[str, Any], path: Path) -> Any:
    """The model these settings describe, without memory for its weights."""
    try:
        return linears.skeleton(settings)
    except BnError:
        raise
    except Exception as error:  # sizes that do not go together make the library raise anything
        what = f"{path}: no {settings['model_type']} model has these sizes: {_first_line(error)}"
        raise bad_input(what) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _dequantize(stored: Any, dtype: str) -> np.ndarray:
    """Values of one tensor, [rows, ..., columns] as the file orders them; bfloat16 comes as float32."""
    import numpy as np
    from gguf.quants import dequantize

    shape = tuple(int(n) for n in reversed(stored.shape))
    rows = stored.data.reshape(-1, stored.data.shape[-1])
    values = np.empty((len(rows), shape[-1]), np.float16 if dtype == "F16" else np.float32)
    step = max(1, CHUNK // max(shape[-1], 1))
    for start in range(0, len(rows), step):
        try:
            values[start : start + step] = dequantize(rows[start : start + step], stored.tensor_type)
        except NotImplementedError:
            raise bad_input(
                f"tensor {stored.name!r}: {stored.tensor_type.name} weights are not read"
            ) from None
    return values.reshape(shape)


def _llama3_rope(factors: np.ndarray, theta: float, label: str) -> dict[str, Any]:
    """Llama 3's frequency scaling from the factors [head_dim / 2] that GGUF stores in its place.

    A wavelength below original/high keeps its frequency, one above original/low is slowed by `factor`,
    between them the inverse is interpolated. Llama 3 uses low 1, high 4, original 8192; others are refused.
    """
    import numpy as np

    low, high, original, factor = 1.0, 4.0, 8192, float(factors.max())
    wavelength = 2 * math.pi * theta ** (np.arange(len(factors)) / len(factors))
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    if not np.allclose(factors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
        raise bad_input(f"{label}: rope_freqs.weight is not Llama 3's rotary scaling")
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }  # fmt: skip
