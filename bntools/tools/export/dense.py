"""The dense form of a model: its tensors, config and side files without any trace of packing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from bntools.core.model.model import Model
from bntools.core.packing import grouped


def dense_tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the checkpoint, dequantized to the type it had, in checkpoint order."""
    for name in model.entries:
        yield name, model.tensor(name)


def dense_config(model: Model) -> dict[str, Any]:
    """config.json without our quantization entry."""
    return {key: value for key, value in model.config.items() if key != "quantization_config"}


def dense_files(model: Model) -> dict[str, bytes]:
    return {name: data for name, data in model.files.items() if name != grouped.FILE}
