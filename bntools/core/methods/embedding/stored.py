"""The artifact `embedding`: how each field is stored, its vocabulary, the head, and what compressing needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.kernels.embedding.head import Head

KIND = "embedding"
Arrays = dict[str, NDArray[Any]]
STATISTICS = ("counts.", "metric.")
INDEX = ("lengths.", "gaps.", "starts.", "order.")
_TYPES = {"uint8": "U8", "uint16": "U16", "uint32": "U32", "float16": "F16", "float32": "F32", "int32": "I32"}


@dataclass
class StoredTables:
    """facts: `bntools.embedding`; arrays: by name; vocab: values a field, in the order their rows are stored.

    A vocabulary is None where a field's rows are found by a hash.
    """

    facts: dict[str, Any]
    arrays: Arrays
    vocab: list[list[str] | None]
    head: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def fields(self) -> list[dict[str, Any]]:
        return self.facts["fields"]

    @property
    def names(self) -> list[str]:
        return [one["name"] for one in self.fields]

    def nbytes(self) -> dict[str, int]:
        """Bytes of embedding, index (what says which numbers are there), vocab, head and statistics."""
        result = {"embedding": 0, "index": 0, "vocab": 0, "head": 0, "statistics": 0}
        for name, array in self.arrays.items():
            part = (
                "statistics"
                if name.startswith(STATISTICS)
                else "index"
                if name.startswith(INDEX)
                else "embedding"
            )
            result[part] += array.nbytes
        result["vocab"] = sum(len(vocabulary_text(v)) for v in self.vocab if v is not None)
        result["head"] = sum(4 * p.numel() for p in self.head.values())
        return result

    def network(self) -> Head:
        """The head, ready to run."""
        return Head(self.facts["model"], tuple(one["width"] for one in self.fields), parameters=self.head)


def vocabulary_text(values: list[str]) -> bytes:
    """One value a line; backslash and the ends of lines escaped."""
    return "\n".join(
        v.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for v in values
    ).encode()


def parse_vocabulary(data: bytes) -> list[str]:
    """The values again."""
    lines = data.decode().split("\n")
    return [_unescaped(line) if "\\" in line else line for line in lines]


def _unescaped(line: str) -> str:
    out, position = [], 0
    while position < len(line):
        if line[position] == "\\":
            out.append({"n": "\n", "r": "\r"}.get(line[position + 1 : position + 2], "\\"))
            position += 2
        else:
            out.append(line[position])
            position += 1
    return "".join(out)


def write(out: Writer, stored: StoredTables) -> None:
    """Add everything to an open writer of kind `embedding`."""
    out.describe("embedding", stored.facts)
    for name, array in stored.arrays.items():
        plain = np.ascontiguousarray(array)
        out.add_raw(name, _TYPES[plain.dtype.name], plain.shape, plain.reshape(-1).view(np.uint8).data)
    for name, p in stored.head.items():
        out.add(f"head.{name}", p)
    for name, values in zip(stored.names, stored.vocab, strict=True):
        if values is not None:
            text = vocabulary_text(values)
            out.add_raw(f"vocab.{name}", "U8", (len(text),), text)


def read(source: Artifact) -> StoredTables:
    """Raises BnError (exit 3) for another kind or a damaged artifact."""
    if source.kind != KIND:
        raise bad_input(
            f"{source.label} is an artifact of kind {source.kind!r}, not {KIND}",
            "bntools embed-fit makes one",
        )
    facts = source.json("bntools.embedding", dict)
    try:
        names = [one["name"] for one in facts["fields"]]
        vocab: list[list[str] | None] = [None] * len(names)
        arrays, head = {}, {}
        for name in source.names():
            if name.startswith("head."):
                head[name[5:]] = source.tensor(name)
            elif name.startswith("vocab."):
                vocab[names.index(name[6:])] = parse_vocabulary(bytes(source.raw(name)))
            else:
                arrays[name] = source.tensor(name).numpy()
        stored = StoredTables(facts, arrays, vocab, head)
        _check(stored)
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise bad_input(f"{source.label}: damaged embedding artifact ({error})", "write it again") from None
    return stored


def _check(stored: StoredTables) -> None:
    """What decoding relies on: every field's arrays are there, and as many rows as values."""
    from bntools.core.methods.embedding.decode import FORMS, vectors

    for t, one in enumerate(stored.fields):
        if one["form"] not in FORMS:
            raise ValueError(f"form {one['form']!r} is not known")
        values = stored.vocab[t]
        if values is not None and len(values) != one["values"]:
            raise ValueError(f"{one['name']}: {len(values)} values, {one['values']} are stated")
        vectors(stored, t, (values or ["0"])[:1])
