"""An energy-based bottleneck: its size and couplings, and the concepts that go with each class."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact
from bntools.core.methods.cbm.energy import file


def facts(source: Artifact) -> dict[str, Any]:
    """Concepts, classes, hidden units, couplings; top {class: concepts likelier in it than elsewhere}."""
    model = file.read(source)
    top = model.facts.get("top")
    shown = top if isinstance(top, dict) else {}
    return {
        "method": "ecbm", "concepts": len(model.names), "classes": len(model.classes), "dimensions": model.width,
        "hidden": len(model.base), "coupling": list(model.coupling),
        "top": {str(name): ", ".join(f"{c[0]} {c[1]:+.2f}" for c in listed) for name, listed in shown.items()},
    }  # fmt: skip
