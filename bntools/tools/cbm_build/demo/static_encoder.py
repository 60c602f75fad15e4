"""A static text encoder: the mean of a table's rows at a text's tokens, of length 1 (WordLlama and its kind)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bntools.core.artifact.reader import open_path
from bntools.core.errors import require, usage
from bntools.core.methods.cbm.bottleneck import Floats, unit
from bntools.core.methods.cbm.file import array


class StaticEncoder:
    """folder: one .safetensors with one matrix [tokens, d], and the tokenizer as JSON. Raises BnError (exit 2)."""

    def __init__(self, folder: str):
        root = Path(folder)
        tables = sorted(root.rglob("*.safetensors"))
        tokenizers = [p for p in sorted(root.rglob("*.json")) if "token" in p.name]
        if not tables or not tokenizers:
            raise usage(f"no static encoder in {folder}", "bntools fetch wordllama -o wordllama/")
        with open_path(tables[0]) as file:
            names = [name for name in file.names() if len(file.entries[name].shape) == 2]
            self.table = array(file, names[0]).astype(np.float32)
        library = require("tokenizers", "hf")
        best = max(tokenizers, key=lambda p: p.stat().st_size)
        self.tokenizer = library.Tokenizer.from_file(str(best))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.name = f"{root.resolve().name}/{tables[0].name}"

    def __call__(self, texts: list[str]) -> Floats:
        """Embeddings [N, d]; a text without tokens is zero."""
        result = np.zeros((len(texts), self.table.shape[1]), np.float32)
        for row, encoding in enumerate(self.tokenizer.encode_batch(texts, add_special_tokens=False)):
            if encoding.ids:
                result[row] = self.table[encoding.ids].mean(0)
        return unit(result)
