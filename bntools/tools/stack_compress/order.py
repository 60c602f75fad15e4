"""In which order the blocks of a stack stand: by what they bring, for their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.artifact.writer import Writer
from bntools.core.model.model import Model
from bntools.core.packing.grouped import AnySpec

Rows = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Block:
    """Rows of one plane of one matrix, or one level of it. index: of the matrix in the checkpoint.

    gain: predicted decrease of the loss, in nats a token. error: decrease of the matrix' relative output error.
    """

    name: str
    index: int
    plane: int
    band: int
    nbytes: int
    gain: float
    error: float


class Coding(Protocol):
    """A model stacked by one codec: what is measured of it and written does not depend on which."""

    model: Model
    blocks: list[Block]
    losses: dict[str, float]

    @property
    def codec(self) -> str: ...

    @property
    def specs(self) -> Mapping[str, AnySpec]: ...

    def dense(self, name: str, there: Mapping[tuple[int, int], int]) -> Tensor:
        """A weight [out, in] by its base and so many bytes of each (plane, band)."""
        ...

    def rows(self, block: Block) -> Rows:
        """The rows of its weight that a block is of."""
        ...

    def base(self, out: Writer) -> tuple[list[str], dict[str, int]]:
        """Write what no prefix lacks; its tensors in order, and bytes by weight and shared tensor."""
        ...

    def block(self, block: Block) -> tuple[tuple[int, ...], bytes]:
        """Shape and bytes of a block."""
        ...

    def kept(self, name: str) -> Tensor:
        """A tensor that is not stacked."""
        ...


def merged(gains: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Gain a byte of the blocks of one stack, made to fall: a block of lower gain is taken with the one after it.

    The slopes of the concave hull of the gains over the bytes (pool adjacent violators).
    """
    pools: list[tuple[float, int, int]] = []  # gain, bytes, blocks
    for gain, size in zip(gains, sizes, strict=True):
        pools.append((gain, size, 1))
        while len(pools) > 1 and pools[-1][0] * pools[-2][1] > pools[-2][0] * pools[-1][1]:
            gain, size, count = pools.pop()
            before = pools.pop()
            pools.append((gain + before[0], size + before[1], count + before[2]))
    return [gain / size for gain, size, count in pools for _ in range(count)]


def greedy(blocks: Iterable[Block], gain: Callable[[Block], float]) -> list[Block]:
    """The block that gains the most a byte first; of one stack each plane after the plane below it."""
    stacks: dict[tuple[str, int], list[Block]] = {}
    for block in blocks:
        stacks.setdefault((block.name, block.band), []).append(block)
    ranked = []
    for stack in stacks.values():
        stack.sort(key=lambda block: block.plane)
        slopes = merged([gain(block) for block in stack], [block.nbytes for block in stack])
        ranked += [
            (-slope, block.plane, block.index, block.band, block)
            for slope, block in zip(slopes, stack, strict=True)
        ]
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])]


def by_layer(blocks: Iterable[Block]) -> list[Block]:
    """Plane by plane, in each the matrices in the order of the checkpoint."""
    return sorted(blocks, key=lambda block: (block.plane, block.index, block.band))


def by_score(blocks: Iterable[Block], score: Callable[[int, list[Block]], list[float]]) -> list[Block]:
    """Plane by plane, in each the block of the lowest score first (BitStack, arXiv 2410.23918, section 3.3).

    score: of the blocks of a plane, each added alone to a model that has all planes below.
    """
    levels: dict[int, list[Block]] = {}
    for block in by_layer(blocks):
        levels.setdefault(block.plane, []).append(block)
    ordered = []
    for plane, level in levels.items():
        scores = score(plane, level)
        ordered += [level[at] for at in sorted(range(len(level)), key=lambda at: (scores[at], at))]
    return ordered
