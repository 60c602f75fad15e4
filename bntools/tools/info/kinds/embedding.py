"""Facts of embedding tables: method, head, fields, bytes."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact
from bntools.core.methods.embedding import stored


def facts(source: Artifact) -> dict[str, Any]:
    """How the vectors are stored, and what that takes."""
    table = stored.read(source)
    known = {
        key: table.facts[key]
        for key in ("method", "budget", "model", "task", "target")
        if table.facts.get(key)
    }
    fields = {
        one["name"]: f"{one['values']:,} values of {one['width']}, {one['form']}" for one in table.fields
    }
    return {**known, "fields": fields, "bytes": table.nbytes()}
