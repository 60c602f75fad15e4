"""Static embeddings: a table of one row a token, a text being the mean of its tokens' rows."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.artifact.streams import temporary_fd, write_all
from bntools.core.datasets.cache import cached_path
from bntools.core.errors import bad_input, usage
from bntools.core.text.tokens import Tokenizer, open_tokenizer

MODEL_TYPE = "static-embedding"
TABLE = "embedding.weight"
WORDLLAMA = "wordllama:"
ARCHIVE, SHA256 = (
    "wordllama-0.4.0.post1.whl",
    "42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
)
_WEIGHTS, _TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"


@dataclass(frozen=True)
class StaticTable:
    """table [V, d] float32 with the tokenizer that indexes it."""

    table: NDArray[np.float32]
    tokenizer: Tokenizer
    label: str
    sha256: str

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Mean of the token rows of each text [n, d]; zeros for a text without tokens."""
        out = np.zeros((len(texts), self.table.shape[1]), np.float32)
        for row, encoding in zip(
            out, self.tokenizer.inner.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            if encoding.ids:
                row[:] = self.table[encoding.ids].mean(0)
        return out


def is_static(spec: str) -> bool:
    """Whether INPUT names a static table: `wordllama:`, or a folder whose config.json says so."""
    if spec == WORDLLAMA:
        return True
    config = Path(spec) / "config.json"
    if not config.is_file():
        return False
    try:
        value = json.loads(config.read_bytes())
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("model_type") == MODEL_TYPE


def open_static(spec: str) -> StaticTable:
    """A static table by folder, or WordLlama's from the cache. Raises BnError: exit 2 if not fetched, 3 if damaged."""
    if spec != WORDLLAMA:
        folder = Path(spec)
        with open_path(folder / "model.safetensors") as file:
            return _opened(file, (folder / "tokenizer.json").read_bytes(), spec)
    path = cached_path(ARCHIVE, SHA256)
    if not path.is_file():
        raise usage("WordLlama is not in the cache", "bntools fetch wordllama")
    tensors, tokenizer = members(path)
    fd = temporary_fd()
    write_all(fd, tensors)
    with Artifact(fd, spec) as file:
        return _opened(file, tokenizer, spec)


def members(archive: Path) -> tuple[bytes, bytes]:
    """The table and tokenizer.json in WordLlama's wheel."""
    with zipfile.ZipFile(archive) as wheel:
        return wheel.read(f"wordllama/{_WEIGHTS}"), wheel.read(f"wordllama/{_TOKENIZER}")


def _opened(file: Artifact, tokenizer: bytes, label: str) -> StaticTable:
    entry = file.entries.get(TABLE)
    if entry is None or len(entry.shape) != 2:
        raise bad_input(f"{label} holds no {TABLE} [tokens, width]")
    table = file.tensor(TABLE).to(torch.float32).numpy()
    opened = open_tokenizer({"tokenizer.json": tokenizer}, {}, label)
    if opened.inner.get_vocab_size() > len(table):
        raise bad_input(f"{label}: {opened.inner.get_vocab_size()} tokens, {len(table)} rows")
    return StaticTable(table, opened, label, file.sha256())
