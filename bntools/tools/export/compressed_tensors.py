"""compressed-tensors checkpoints of the format pack-quantized: symmetric codes per output, 1 to 8 bits."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from bntools.core.foreign import compressed_tensors
from bntools.core.foreign.plain_codes import PlainCodes
from bntools.core.model.model import Model
from bntools.tools.export.plan import Grid, Item, Source

_SMALLEST = 16  # inputs of a group; where no common divisor is as large, one group a row


class CompressedTensors:
    """Symmetric only: transformers 5.23 with compressed-tensors 0.20 fails on packed zeros (their shapes differ)."""

    name = "compressed-tensors"
    lowest_zero = 0

    def impossible(self, source: Source) -> str:
        if len(source.spec.shape) != 2:
            return "it is a stack of experts"
        return "it is no nn.Linear (stored inputs first)" if source.conv1d else ""

    def misfit(self, source: Source) -> str:
        if source.zeros is not None:
            return "its grid is asymmetric, which transformers cannot load from this format"
        if source.shape[1] % source.width:
            return f"groups of {source.width} do not divide {source.shape[1]} inputs"
        return ""

    def nearest_grid(self, source: Source) -> Grid:
        """The largest group that divides both the inputs and the group it had."""
        inputs = source.shape[1]
        width = inputs if source.width == inputs else math.gcd(source.width, inputs)
        return Grid(source.spec.bits, width if width >= _SMALLEST else inputs, True)

    def tensors(self, module: str, coded: PlainCodes) -> dict[str, Tensor]:
        return {f"{module}.{part}": value for part, value in compressed_tensors.encode(coded).items()}

    def settings(self, model: Model, items: list[Item]) -> dict[str, Any]:
        """quantization_config: one group a grid; the class Linear as target where there is one, else names."""
        by_grid: dict[tuple[int, int | None], list[str]] = {}
        for item in items:
            if item.source and item.grid:
                whole = item.grid.width == item.source.shape[1]
                key = (item.grid.bits, None if whole else item.grid.width)
                by_grid.setdefault(key, []).append(item.source.module)
        dense = [linear.module for name, linear in model.linears.items() if name not in model.packing]
        groups = {
            f"group_{index}": _group(bits, width, ["Linear"] if len(by_grid) == 1 else modules)
            for index, ((bits, width), modules) in enumerate(by_grid.items())
        }
        return {
            "quant_method": "compressed-tensors", "format": compressed_tensors.FORMAT,
            "quantization_status": "compressed",
            "config_groups": groups, "ignore": [*dense, "lm_head"], "kv_cache_scheme": None,
        }  # fmt: skip

    def files(self, settings: dict[str, Any]) -> dict[str, bytes]:
        return {}


def _group(bits: int, width: int | None, targets: list[str]) -> dict[str, Any]:
    weights = {
        "num_bits": bits, "type": "int", "symmetric": True, "strategy": "channel" if width is None else "group",
        "group_size": width, "dynamic": False, "actorder": None,
    }  # fmt: skip
    return {"targets": targets, "weights": weights, "input_activations": None, "output_activations": None}
