"""Facts of a plan of a key-value cache, from its metadata."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Model, method, code, bits a value, bytes a token, exact tokens, strength of token weights, divergence."""
    known = source.json("bntools.kv", dict)
    model = known.get("model", {})
    shown = ("method", "code", "bits", "bytes_per_token", "sink", "recent", "gamma", "predicted_kl")
    return {"model": model.get("type"), "layers": len(known.get("layers", [])),
            **{name: known[name] for name in shown if known.get(name) is not None}}  # fmt: skip
