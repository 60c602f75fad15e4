"""Small networks: the weights that a seed and d numbers stand for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bntools.core.artifact.reader import Artifact
from bntools.core.model import subspace

KIND = subspace.NETWORK


def is_network(opened: object) -> bool:
    """Whether an input is a network without a config.json: a subspace of one, or its dense form."""
    if not isinstance(opened, Artifact) or opened.kind not in (subspace.KIND, KIND):
        return False
    return opened.kind == KIND or "base" not in subspace.read_facts(opened).network


def dense(opened: Artifact, file: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What describes the network, and all of its state by name. Raises BnError where it cannot be built."""
    return subspace.network_facts(opened), dict(subspace.open_network(opened, file).state_dict())
