"""Facts of sparse codes, from their header."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """How the rows were encoded, and the columns beside them."""
    known = source.json("bntools.codes", dict)
    columns = [name for name in source.names() if len(source.entries[name].shape) == 1]
    return {**known, "columns": columns}
