"""What info says of a lexicon: the report of its build."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact

_SHOWN = ("n", "dims", "metric", "method", "vocabulary", "bytes_per_vector", "postings_per_query", "recall_heldout",
          "lost_against_dense", "untrained")  # fmt: skip


def facts(source: Artifact) -> dict[str, Any]:
    """Size, words and recall of the lexicon, from its header."""
    known = source.json("bntools.index", dict)
    return {name: known[name] for name in _SHOWN if known.get(name) is not None}
