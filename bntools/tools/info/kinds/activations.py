"""Facts of activations, from their header."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Where the rows come from, and the columns beside them."""
    known = source.json("bntools.activations", dict)
    columns = [name for name in source.names() if len(source.entries[name].shape) == 1]
    return {**known, "columns": columns}
