"""The formats by name, and the size a model takes in one of them."""

from __future__ import annotations

from bntools.core.model.model import Model
from bntools.tools.export.compressed_tensors import CompressedTensors
from bntools.tools.export.gptq import GPTQ
from bntools.tools.export.plan import Item

LAYOUTS = {
    "gptq": lambda: GPTQ(first=True),
    "gptq_v2": lambda: GPTQ(first=False),
    "compressed-tensors": CompressedTensors,
}


def stored_bytes(model: Model, items: list[Item]) -> int:
    """About the bytes of all tensors, in any of these formats: codes, float16 scales, zeros."""
    size = 0
    for item in items:
        if item.source is None or item.grid is None:
            size += model.entries[item.name].nbytes
            continue
        out, inputs = item.source.shape
        groups = -(-inputs // item.grid.width)
        zeros = 0 if item.grid.symmetric else out * groups * item.grid.bits // 8
        size += -(-out * inputs * item.grid.bits // 8) + 2 * out * groups + zeros
    return size
