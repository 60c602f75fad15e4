"""A bottleneck over sequences: its size, and the strongest concepts of each class."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact
from bntools.core.methods.cbm.bottleneck import topmost
from bntools.core.methods.cbm.sequence import file

_TOP = 5


def facts(source: Artifact) -> dict[str, Any]:
    """Concepts, classes, form and top concepts {class: "concept +0.41, ..."}."""
    model = file.read(source)
    weight = model.parameters["weight"].numpy()
    return {
        "method": "motif", "concepts": len(model.names), "classes": len(model.classes),
        "dimensions": model.vectors.shape[1], "paper": model.paper, "temperature": model.temperature,
        "top": {
            name: ", ".join(f"{model.names[k]} {weight[c, k]:+.2f}" for k in topmost(abs(weight[c]), _TOP))
            for c, name in enumerate(model.classes)
        },
    }  # fmt: skip
