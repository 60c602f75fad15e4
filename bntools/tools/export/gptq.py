"""GPTQ checkpoints: codes per output, integer zeros, 2, 3, 4 or 8 bits."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from torch import Tensor

from bntools import __version__
from bntools.core.foreign import gptq
from bntools.core.foreign.plain_codes import PlainCodes
from bntools.core.model.model import Model
from bntools.tools.export.plan import Grid, Item, Source


class GPTQ:
    """Format 1 (`gptq`), which stores zero - 1, or 2 (`gptq_v2`), which stores the zero itself."""

    def __init__(self, first: bool) -> None:
        self.first = first
        self.name = "gptq" if first else "gptq_v2"
        # Format 1 has no zero 0: some readers wrap it in its field, others let it borrow from the next field.
        self.lowest_zero = 1 if first else 0

    def impossible(self, source: Source) -> str:
        if len(source.spec.shape) != 2:
            return "it is a stack of experts"
        out, inputs = source.shape
        bits = _bits(source.spec.bits)
        each = 32 if bits == 3 else 32 // bits
        if inputs % each or out % each:
            return f"{inputs} inputs and {out} outputs do not both fill whole words of {bits}-bit codes"
        return ""

    def misfit(self, source: Source) -> str:
        if source.spec.bits not in gptq.BITS:
            return f"{source.spec.bits} bits (it has 2, 3, 4 and 8)"
        if self.first and source.zeros is not None and bool((source.zeros == 0).any()):
            return (
                "a zero is 0, which format 1 stores as -1 and its readers take differently (gptq_v2 holds it)"
            )
        return "" if source.half else "a scale needs more than float16"

    def nearest_grid(self, source: Source) -> Grid:
        width = source.width if source.spec.dim == "oc" else min(source.width, source.shape[1])
        return Grid(_bits(source.spec.bits), width, source.spec.symmetric)

    def tensors(self, module: str, coded: PlainCodes) -> dict[str, Tensor]:
        return {f"{module}.{part}": value for part, value in gptq.encode(coded, self.first).items()}

    def settings(self, model: Model, items: list[Item]) -> dict[str, Any]:
        """quantization_config: the commonest grid, and under `dynamic` whatever differs from it or is dense."""
        chosen = {item.source: item.grid for item in items if item.source and item.grid}
        grids = {source.module: (grid, source.shape[1]) for source, grid in chosen.items()}
        common = Counter(_entry(grid, inputs) for grid, inputs in grids.values()).most_common(1)[0][0]
        dynamic: dict[str, Any] = {}
        for module, (grid, inputs) in grids.items():
            own = _entry(grid, inputs)
            if own != common and not _same(common, grid, inputs):
                dynamic[f"+:^{re.escape(module)}$"] = dict(
                    zip(("bits", "group_size", "sym"), own, strict=True)
                )
        for name, linear in model.linears.items():
            if name not in model.packing:
                dynamic[f"-:^{re.escape(linear.module)}$"] = {}
        bits, group, symmetric = common
        return {
            "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": symmetric,
            "lm_head": False, "checkpoint_format": self.name, "pack_dtype": "int32", "dynamic": dynamic or None,
            "meta": {"quantizer": [f"bntools:{__version__}"]},
        }  # fmt: skip

    def files(self, settings: dict[str, Any]) -> dict[str, bytes]:
        return {"quantize_config.json": json.dumps(settings, indent=2).encode() + b"\n"}


def _bits(bits: int) -> int:
    """The fewest bits of the format that are enough."""
    return next(size for size in gptq.BITS if size >= bits)


def _entry(grid: Grid, inputs: int) -> tuple[int, int, bool]:
    return grid.bits, -1 if grid.width == inputs else grid.width, grid.symmetric


def _same(common: tuple[int, int, bool], grid: Grid, inputs: int) -> bool:
    """Whether the common settings describe a module of one group that is no longer than theirs."""
    bits, group, symmetric = common
    return (bits, symmetric) == (grid.bits, grid.symmetric) and grid.width == inputs and group >= inputs
