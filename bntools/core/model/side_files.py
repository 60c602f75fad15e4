"""The small files beside a model's weights that travel with it: whatever a tokenizer or processor may read."""

from __future__ import annotations

import re
from pathlib import Path

from bntools.core.artifact.header import FILE_NAME
from bntools.core.packing.grouped import FILE as PACKING_FILE

FIRST = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "generation_config.json", "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json", "vocab.txt",
    "tokenizer.model", PACKING_FILE,
)  # fmt: skip
"""In this order, before all others."""
TEMPLATES = "additional_chat_templates"
"""The one folder beside the weights that transformers reads from."""
PATTERNS = (
    "*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.tiktoken", "*.vocab", "*.codes", "*.bpe", "*.tsv",
    "*.tokenizer", f"{TEMPLATES}/*.jinja",
)  # fmt: skip
_LARGEST = 64 << 20  # bytes; a tokenizer of a million tokens is 35 MB
_OTHERS = re.compile(  # what says how the weights were stored or made, or is for people
    r"config\.json|.*\.index\.json|.*quant.*\.json|adapter_config\.json|trainer_state\.json|.*_results\.json"
    r"|(README|LICEN[CS]E|NOTICE|requirements|USE_POLICY)\b.*",
    re.IGNORECASE,
)
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|gguf|ot|index\.json)|\..*|.*\.md", re.IGNORECASE
)


def read(folder: Path) -> dict[str, bytes]:
    """The side files of a model's folder by name, one in a folder as `folder/name`."""
    names = [name for name in FIRST if (folder / name).is_file()]
    present = {path.relative_to(folder).as_posix() for pattern in PATTERNS for path in folder.glob(pattern)}
    names += sorted(name for name in present if name not in FIRST and _travels(folder / name, name))
    return {name: (folder / name).read_bytes() for name in names}


def left_behind(folder: Path) -> list[str]:
    """What lies beside the weights and does not travel, other weights and papers for people aside."""
    there = [path for path in sorted(folder.iterdir()) if not _WEIGHTS.fullmatch(path.name)]
    names = [path.name for path in there if not _OTHERS.fullmatch(path.name)]
    taken = {name.partition("/")[0] for name in read(folder)}
    return [name for name in names if name not in taken]


def _travels(path: Path, name: str) -> bool:
    return (
        path.is_file()
        and bool(FILE_NAME.fullmatch(name))
        and not _OTHERS.fullmatch(path.name)
        and path.stat().st_size <= _LARGEST
    )
