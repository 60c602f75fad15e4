"""Facts of a sparse dictionary, from its metadata."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Method, k, latents, width, how it encodes, and where its rows come from."""
    known = source.json("bntools.sae", dict)
    shown = ("method", "k", "m", "d", "inference", "model", "layer", "site", "tokens", "outliers", "seed")
    return {name: known[name] for name in shown if name in known}
