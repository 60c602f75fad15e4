"""What info says of a vector index: the report of its build."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact

_SHOWN = (
    "n", "dims", "kept_dims", "metric", "method", "code", "second", "cells", "segments", "deleted",
    "bytes_per_vector", "second_bytes_per_vector", "graph_bytes_per_vector", "query_shift", "queries_learn",
    "recall_promised", "recall_heldout",
)  # fmt: skip


def facts(source: Artifact) -> dict[str, Any]:
    """Size, map, code and recall of the index, from its header."""
    known = source.json("bntools.index", dict)
    return {name: known[name] for name in _SHOWN if known.get(name) is not None}
