"""The attention that is asked about and the fast memory it has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bntools.core.errors import usage
from bntools.core.system.sizes import UNITS

ITEM = {"fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


@dataclass(frozen=True)
class Problem:
    """One group of query heads over one head of keys and values.

    rows: queries times heads of the group; keys: tokens; width: head size; memory: elements of fast memory.
    group: query heads, whose rows of one token stand together. wide: size of an accumulator in elements.
    stages: tiles of keys and values on their way at once. granule: sizes of tiles are multiples of it.
    """

    rows: int
    keys: int
    width: int
    memory: int
    causal: bool = False
    group: int = 1
    wide: float = 1.0
    stages: int = 1
    granule: int = 1

    def visible(self, last_row: int) -> int:
        """Keys that the rows up to `last_row`, counted from 1, may see."""
        if not self.causal:
            return self.keys
        queries = self.rows // self.group
        return min(self.keys, -(-last_row // self.group) + self.keys - queries)

    def first_row(self, key: int) -> int:
        """The first row, counted from 0, that may see the key counted from 0."""
        return self.group * max(0, key + self.rows // self.group - self.keys) if self.causal else 0

    @property
    def compulsory(self) -> int:
        """Elements that any order moves: queries, keys, values in, outputs out."""
        return 2 * (self.rows + self.keys) * self.width

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are computed."""
        if not self.causal:
            return self.rows * self.keys
        queries = self.rows // self.group
        return self.group * sum(self.visible(self.group * query) for query in range(1, queries + 1))


def parse_memory(text: str, item: int) -> int:
    """Elements of a size: 228KiB of elements of `item` bytes, or 512el. Raises BnError (exit 2) without a unit."""
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else ""
    if match is None or unit not in (*UNITS, "EL"):
        raise usage(f"--sram {text!r} has no unit", "--sram 228KiB, or 512el for elements")
    count = float(match[1]) if unit == "EL" else float(match[1]) * UNITS[unit] / item
    if count < 1:
        raise usage(f"--sram {text!r} holds no element", "--sram 228KiB")
    return int(count)
