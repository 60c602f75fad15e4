"""Facts of a stored key-value cache, from its metadata."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Model, tokens, code and bits a value."""
    known = source.json("bntools.kv", dict)
    return {"model": known.get("model", {}).get("type"), "tokens": known.get("length"), "code": known.get("code"),
            "bits": known.get("bits")}  # fmt: skip
