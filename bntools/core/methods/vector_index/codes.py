"""The codes an index can hold its vectors in: each can say its bytes and decode a range of vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.vectors import locally_adaptive, product
from bntools.kernels.vectors.locally_adaptive import Adaptive
from bntools.kernels.vectors.product import Codebook

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]


class Code(Protocol):
    """Vectors [n, d] by position, coded. `tensors` is what a file keeps, by name."""

    def __len__(self) -> int: ...

    def decode(self, first: int, last: int) -> Floats: ...

    def bytes_per_vector(self) -> float: ...

    def tensors(self) -> Tensors: ...


@dataclass(frozen=True)
class ProductCode:
    """Bytes of product words in blocks of 32 vectors, and one byte of length factor each, low + step * factor."""

    blocks: NDArray[np.uint8]
    book: Codebook
    factor: NDArray[np.uint8]
    grid: Floats
    width: int

    def __len__(self) -> int:
        return len(self.factor)

    @cached_property
    def factors(self) -> Floats:
        """The length factor of each vector."""
        return self.grid[0] + self.grid[1] * self.factor.astype(np.float32)

    @cached_property
    def by_vector(self) -> NDArray[np.uint8]:
        """The bytes of each vector together [n, bytes], for walks that meet vectors one by one."""
        return product.from_blocks(self.blocks, len(self))

    def decode(self, first: int, last: int) -> Floats:
        low, high = first // 32, -(-last // 32)
        codes = product.from_blocks(self.blocks[low:high], last - 32 * low)[first - 32 * low :]
        return product.decode(codes, self.book, self.width) * self.factors[first:last, None]

    def bytes_per_vector(self) -> float:
        return self.blocks.shape[1] + 1

    def tensors(self) -> Tensors:
        return {
            "codes": self.blocks,
            "factor": self.factor,
            "factor.grid": self.grid,
            "groups.order": self.book.groups.order,
            "groups.start": self.book.groups.start,
            "words": self.book.words,
        }


@dataclass(frozen=True)
class AdaptiveCode:
    """LVQ of `bits` a coordinate, 4 or 8, with a second level of 8 bits where `residual` is there."""

    code: Adaptive
    bits: int
    width: int
    residual: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.code.low)

    def decode(self, first: int, last: int) -> Floats:
        codes, low, step = self.code.codes[first:last], self.code.low[first:last], self.code.step[first:last]
        if self.bits == 4:
            codes = locally_adaptive.unpack_halves(codes, self.width)
        part = Adaptive(codes, low, step)
        if self.residual is None:
            return locally_adaptive.decode(part)
        return locally_adaptive.decode_residual(part, self.residual[first:last])

    def bytes_per_vector(self) -> float:
        return self.code.codes.shape[1] + 4 + (0 if self.residual is None else self.width)

    def tensors(self) -> Tensors:
        own = {"codes": self.code.codes, "low": self.code.low, "step": self.code.step}
        return own if self.residual is None else {**own, "residual": self.residual}


@dataclass(frozen=True)
class HalfCode:
    """Coordinates as float16, or as float32 where `values` is that."""

    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    def decode(self, first: int, last: int) -> Floats:
        return self.values[first:last].astype(np.float32)

    def bytes_per_vector(self) -> float:
        return self.values.itemsize * self.values.shape[1]

    def tensors(self) -> Tensors:
        return {"codes": self.values}


def factor_grid(factor: Floats) -> Floats:
    """Least level and step [2] of 256 levels over the range of length factors [n]."""
    low, high = np.quantile(factor, (0.0005, 0.9995)) if len(factor) else (1.0, 1.0)
    return np.array([low, max(high - low, 1e-9) / 255], np.float32)


def product_code(
    codes: NDArray[np.uint8], factor: Floats, book: Codebook, *, width: int, grid: Floats, order: Any
) -> ProductCode:
    """Codes [n, bytes] and length factors [n] as an index holds them: rows in `order`, factors on a grid.

    Rows are put into blocks a tile at a time: beside the codes memory holds the blocks alone.
    """
    blocks = np.empty((-(-len(codes) // 32), codes.shape[1], 32), np.uint8)
    for start in range(0, len(codes), TILE):
        tile = codes[order[start : start + TILE]]
        blocks[start // 32 : start // 32 + -(-len(tile) // 32)] = product.into_blocks(tile)
    levels = np.clip(np.rint((factor[order] - grid[0]) / grid[1]), 0, 255).astype(np.uint8)
    return ProductCode(blocks, book, levels, grid, width)


def adaptive_code(x: Floats, name: str) -> AdaptiveCode:
    """Code x [n, d] by LVQ: lvq8, lvq4 or lvq4x8."""
    bits = 8 if name == "lvq8" else 4
    code = locally_adaptive.encode(x, bits)
    residual = locally_adaptive.encode_residual(x, code) if name == "lvq4x8" else None
    if bits == 4:
        code = code._replace(codes=locally_adaptive.pack_halves(code.codes))
    return AdaptiveCode(code, bits, x.shape[1], residual)


def plain_code(x: Floats, name: str) -> AdaptiveCode | HalfCode:
    """Code x [n, d] without training: an LVQ, f16 or f32."""
    if name in ("f16", "f32"):
        return HalfCode(x.astype(np.float16 if name == "f16" else np.float32))
    return adaptive_code(x, name)


def plain_from(tensors: Tensors, name: str, width: int) -> AdaptiveCode | HalfCode:
    """The code that `tensors` are of, an LVQ, f16 or f32."""
    if name in ("f16", "f32"):
        return HalfCode(tensors["codes"])
    code = Adaptive(tensors["codes"], tensors["low"], tensors["step"])
    return AdaptiveCode(code, 8 if name == "lvq8" else 4, width, tensors.get("residual"))


TILE = 4096
"""Vectors decoded at a time."""
