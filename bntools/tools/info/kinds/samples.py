"""What info says of samples: how many, of what shape, and how they were drawn."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.samples import MAIN

_SHOWN = ("model", "method", "seed", "nfe", "cost", "wall")


def facts(source: Artifact) -> dict[str, Any]:
    """From the header: counts, shape, facts of the run, and the tensors of other ways of drawing."""
    entry = source.entries.get(MAIN)
    known = source.json("bntools.samples", dict)
    told: dict[str, Any] = (
        {} if entry is None else {"samples": entry.shape[0], "shape": list(entry.shape[1:])}
    )
    told |= {name: known[name] for name in _SHOWN if known.get(name) is not None}
    others = {row["tensor"]: row.get("name", "") for row in known.get("rows", []) if "tensor" in row}
    if others:
        told["tensors"] = others
    return told
