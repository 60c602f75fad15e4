"""Stacked weights: an entropy-coded base, then one-bit planes of which any prefix may be there (bntools-stack(5))."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bntools.core.artifact import fields
from bntools.core.artifact.header import BLOCK_PREFIX
from bntools.core.errors import bad_input
from bntools.core.packing import entropy

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from bntools.core.artifact.reader import Artifact
    from bntools.core.packing.entropy import Ints
    from bntools.kernels.stack.compact_levels import CompactLevels
    from bntools.kernels.stack.weight import Scales, Stacked

CODE = "planes"
MOST_PLANES = 7
MOST_TRELLISED = 2
CHUNK = 1 << 17  # weights made at once
BLOCK_BYTES = 1 << 18  # of a block at most: larger matrices are cut into bands of rows


@dataclass(frozen=True)
class StackSpec(entropy.EntropySpec):
    """An entropy-coded base and `planes` planes over it, each cut into blocks of `band` rows.

    trellis: planes, the first ones, whose bits are a trellis code's (`kernels.linked`).
    """

    planes: int = 0
    band: int = 1
    trellis: int = 0

    @property
    def bands(self) -> int:
        return -(-self.rows // self.band)

    @property
    def width(self) -> int:
        """Bytes of a row of a plane."""
        return -(-self.cols // 8)

    def band_rows(self, index: int) -> range:
        """Rows of a block, in the order of the planes."""
        return range(index * self.band, min((index + 1) * self.band, self.rows))

    def block_names(self, name: str) -> list[str]:
        return [
            block_name(name, plane, band) for plane in range(1, self.planes + 1) for band in range(self.bands)
        ]

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "code": CODE}


def block_name(name: str, plane: int, band: int) -> str:
    """Tensor of one block: planes count from 1, bands from 0."""
    return f"{BLOCK_PREFIX}{name}/{plane}/{band}"


def spec(base: entropy.EntropySpec, planes: int, band: int, trellis: int) -> StackSpec:
    """The spec of a stack over a base."""
    return StackSpec(base.shape, base.dtype, base.transposed, base.octave, base.lane, planes, band, trellis)


def parse(name: str, value: Mapping[str, Any]) -> StackSpec:
    """A spec from quantization.json; BnError (exit 3) on anything no writer of ours would have written."""
    base = entropy.parse(name, value)
    try:
        planes, band = (
            fields.whole(value["planes"], 0, MOST_PLANES),
            fields.whole(value["band"], 1, base.rows),
        )
        parsed = spec(
            base, planes, band, fields.whole(value.get("trellis", 0), 0, min(MOST_TRELLISED, planes))
        )
    except (KeyError, ValueError):
        raise bad_input(f"the coding of {name!r} is damaged") from None
    return parsed


class Curve:
    """The divergence that the writer of a stack measured at some sizes. points: (bytes of the file, nats a token)."""

    def __init__(self, source: Artifact) -> None:
        points = source.json("bntools.stack", dict).get("curve", [])
        base = source.header.base_bytes
        try:
            self.points = sorted((base + fields.whole(size), fields.number(kl)) for size, kl in points)
        except (TypeError, ValueError):
            raise bad_input(f"the curve of {source.label} is damaged") from None

    def expected(self, nbytes: int) -> float | None:
        """Divergence at a size, its logarithm interpolated; that of the last point beyond it; None below the first."""
        if not self.points or nbytes < self.points[0][0]:
            return None
        for (low, before), (high, after) in pairwise(self.points):
            if nbytes <= high and min(before, after) > 0:
                share = (nbytes - low) / max(high - low, 1)
                return math.exp((1 - share) * math.log(before) + share * math.log(after))
        return self.points[-1][1]


def band_rows(rows: int, width: int) -> int:
    """Rows of a block: all of them, or as few as make bands of about equal size below 256 kB."""
    bands = -(-rows * width // BLOCK_BYTES)
    return -(-rows // bands)


def row_order(row_scale: Ints) -> NDArray[np.intp]:
    """The rows in the order of the planes: the smallest scale, which is of the most important row, first."""
    import numpy as np

    return np.argsort(row_scale, kind="stable")


@dataclass
class Planes:
    """What is there of a weight's planes, rows in the order of the planes.

    A plane is a line of bits a row, one of a trellis code two (`kernels.linked`). bits [n, width] uint8: line l, from
    0 on, of row k is bits[first[k] + l * stride], there for l < lines(depth[k], trellis). first: int32, depth, in
    planes: uint8, [rows]. trellis: planes of two lines.
    """

    bits: NDArray[np.uint8]
    first: NDArray[np.int32]
    stride: int
    depth: NDArray[np.uint8]
    trellis: int

    @classmethod
    def read(cls, name: str, spec: StackSpec, part: Callable[[str], bytes | bytearray]) -> Planes:
        """part: the bytes of a block that are there. A row counts when all of it and all planes before it are."""
        import numpy as np

        from bntools.kernels.stack import plane_trellis

        bits = np.empty((plane_trellis.lines(spec.planes, spec.trellis), spec.rows, spec.width), np.uint8)
        there = np.zeros((spec.planes, spec.rows), bool)
        for plane in range(spec.planes):
            line = plane_trellis.lines(plane, spec.trellis)
            for band in range(spec.bands):
                data = part(block_name(name, plane + 1, band))
                rows = spec.band_rows(band)
                count = len(data) // spec.width
                if count > len(rows):
                    raise bad_input(f"{name}: a block of plane {plane + 1} has {count} rows, not {len(rows)}")
                here = slice(rows.start, rows.start + count)
                whole = np.frombuffer(data, np.uint8, count * spec.width).reshape(count, spec.width)
                if plane < spec.trellis:
                    bits[line, here], bits[line + 1, here] = plane_trellis.decode(whole)
                else:
                    bits[line, here] = whole
                there[plane, here] = True
        depth = np.logical_and.accumulate(there, axis=0).sum(0, dtype=np.uint8)
        first = np.arange(spec.rows, dtype=np.int32)
        return cls(bits.reshape(-1, spec.width), first, spec.rows, depth, spec.trellis)

    def limited(self, planes: int) -> Planes:
        """The first `planes` planes alone."""
        import numpy as np

        depth = np.minimum(self.depth, np.uint8(planes))
        return Planes(self.bits, self.first, self.stride, depth, self.trellis)

    def compact(self) -> Planes:
        """The same in memory of their own, what is not there left out: all planes of a row, then the next row."""
        import numpy as np

        from bntools.kernels.stack import plane_trellis

        count = plane_trellis.lines(self.depth, self.trellis)
        row = np.repeat(np.arange(len(count)), count)
        first = np.cumsum(count, dtype=np.int64) - count
        line = np.arange(len(row)) - first[row]
        bits = self.bits[self.first[row] + line * self.stride]
        return Planes(bits, first.astype(np.int32), 1, self.depth, self.trellis)


@dataclass
class Base:
    """The base of a weight, decoded, ready for its planes. order: see `row_order`; ranks: of each row in it."""

    levels: CompactLevels
    scales: Scales
    order: NDArray[np.int32]
    ranks: NDArray[np.int32]

    @classmethod
    def of(cls, coded: entropy.EntropyCoded, shrink: NDArray[np.float32], octave: int) -> Base:
        import numpy as np

        from bntools.kernels.stack import compact_levels
        from bntools.kernels.stack import weight as stack_weight

        row, col = (entropy.powers(side, octave) for side in (coded.row_scale, coded.col_scale))
        scales = stack_weight.Scales(row, col, coded.row_class, coded.col_class, shrink)
        order = row_order(coded.row_scale).astype(np.int32)
        return cls(compact_levels.compact(coded.levels), scales, order, np.argsort(order).astype(np.int32))

    def with_planes(self, planes: Planes) -> Stacked:
        """The weight as the kernels take it."""
        from bntools.kernels.stack.weight import Stacked

        first, depth = planes.first[self.ranks], planes.depth[self.ranks]
        return Stacked(self.levels, self.scales, planes.bits, first, planes.stride, depth, planes.trellis)

    def dense(self, planes: Planes, dtype: torch.dtype, transposed: bool) -> torch.Tensor:
        """The weight [rows, cols], or [cols, rows] if transposed, on torch's number of threads."""
        import numpy as np
        import torch

        from bntools.kernels.stack import weight as stack_weight

        weight, (rows, cols) = self.with_planes(planes), self.shape
        out = torch.empty(rows, cols, dtype=dtype)
        # as much as stays in the second-level cache where it is rounded yet, else one call a thread
        plain = dtype == torch.float32
        size = max(1, -(-rows // torch.get_num_threads()) if plain else CHUNK // cols)

        def place(index: int) -> None:
            part = slice(index * size, min((index + 1) * size, rows))
            which = np.arange(part.start, part.stop)
            if plain:
                stack_weight.rows(weight, which, out[part].numpy())
            else:
                out[part] = torch.from_numpy(stack_weight.rows(weight, which))

        entropy.each(place, -(-rows // size))
        return out.T.contiguous() if transposed else out

    @property
    def shape(self) -> tuple[int, int]:
        return self.levels.rows, self.levels.cols

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        parts = (*self.scales, self.order, self.ranks)
        return self.levels.nbytes + sum(part.nbytes for part in parts)
