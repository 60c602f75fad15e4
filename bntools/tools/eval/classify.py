"""Accuracy of a small network on labelled data."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.artifact.reader import Artifact
from bntools.core.datasets import labelled, networks
from bntools.core.errors import bad_input
from bntools.core.model import subspace


def classify(opened: Any, source: str, data: str, file: str | None, *, seed: int = 0) -> dict[str, Any]:
    """The report of kind `eval` for an artifact of kind `subspace` or `network` on the test rows of a data set.

    file: FILE.py:FUNCTION for a network that a Python file builds. Raises BnError (exit 3) where the artifact is of
    another kind or the data do not fit it.
    """
    if not isinstance(opened, Artifact) or opened.kind not in (subspace.KIND, subspace.NETWORK):
        raise bad_input(
            f"{source} is no network of intrinsic-dim", "leave out --data: models are scored on text"
        )
    facts = subspace.network_facts(opened)
    rows = labelled.read(data, seed)
    if list(rows.shape) != facts["shape"] or rows.classes > facts["classes"]:
        what = f"{data} has inputs {list(rows.shape)} and {rows.classes} classes"
        raise bad_input(f"{what}, the network takes {facts['shape']} and {facts['classes']}")
    module = subspace.open_network(opened, file)
    accuracy = networks.accuracy(module, rows.test, facts["mean"], facts["std"])
    count = len(rows.test)
    return {
        "kind": "eval",
        "model": opened.label,
        "bytes": opened.header.total,
        "protocol": "accuracy",
        "rows": count,
        "accuracy": {"value": accuracy, "se": float(np.sqrt(accuracy * (1 - accuracy) / count))},
        "largest_class": float(np.bincount(rows.test.y).max() / count),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
