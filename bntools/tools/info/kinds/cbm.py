"""A concept bottleneck: its size, and the strongest concepts of each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.artifact.reader import Artifact
from bntools.core.methods.cbm import file

_TOP = 5


def facts(source: Artifact) -> dict[str, Any]:
    """Concepts, classes, sparsity, method and top concepts {class: "concept +0.41, ..."}."""
    model = file.read(source)
    order = np.argsort(-np.abs(model.weight * (model.scale != 0)), axis=1, kind="stable")[:, :_TOP]
    return {
        "method": model.facts.get("method"), "concepts": len(model.names), "classes": len(model.classes),
        "dimensions": model.vectors.shape[1], "activation": model.activation, "nec": model.nec,
        "heads": [int(nec) for nec in model.heads], "residual": model.residual is not None,
        "top": {
            name: ", ".join(f"{model.names[k]} {model.weight[c, k]:+.2f}" for k in order[c] if model.weight[c, k] != 0)
            for c, name in enumerate(model.classes)
        },
    }  # fmt: skip
