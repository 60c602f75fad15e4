"""The code `entropy`: levels of transformed keys and values behind rANS, a lane a key head and block of tokens."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.methods.kv.metric import QueryMetric
from bntools.kernels.attention import levels as kernel
from bntools.kernels.entropy import rans, rans_cpu, step_classes

BLOCK = 32
"""Tokens coded at a time: crop and random access cost one block."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int16]
_NO_MACHINE = np.zeros((1, 3), np.int64)
EXCHANGE = float(np.log(2) / 6)
"""Squared steps that a bit is worth at high rates: D = step^2 / 12 falls by 2 ln 2 D a bit."""


@dataclass(frozen=True)
class LevelTables:
    """What all layers of a plan share, by class: frequencies [64, 256], reconstruction points and gains [64, 5]."""

    frequencies: NDArray[np.uint16]
    centres: Floats

    @functools.cached_property
    def packed(self) -> NDArray[np.uint32]:
        return rans.cumulative(self.frequencies)

    @functools.cached_property
    def symbols(self) -> NDArray[np.uint8]:
        return rans.slots(self.frequencies)

    @functools.cached_property
    def bits(self) -> Floats:
        """Of a level of each size under each table."""
        return kernel.code_lengths(self.frequencies)

    @functools.cached_property
    def price(self) -> Floats:
        return (EXCHANGE * self.bits).astype(np.float32)

    @classmethod
    def plain(cls) -> LevelTables:
        """Of two-sided exponentials alone, before any level was counted."""
        counts = np.zeros((rans.CLASSES, rans.SYMBOLS), np.int64)
        centres = kernel.centres_of(np.zeros((rans.CLASSES, kernel.CENTRES, 2)))
        return cls(rans.normalize(kernel.two_sided(counts)), centres)


@dataclass
class LevelCounts:
    """Gathers what tables are made of."""

    counts: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((rans.CLASSES, rans.SYMBOLS), np.int64)
    )
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((rans.CLASSES, kernel.CENTRES, 2)))

    def tables(self) -> LevelTables:
        return LevelTables(rans.normalize(kernel.two_sided(self.counts)), kernel.centres_of(self.sums))


@dataclass(frozen=True)
class CodedBlock:
    """Tokens that were coded together, of one layer and one row of a batch; `used` of them are still there."""

    data: bytes
    tokens: int
    used: int

    def cut(self, used: int) -> CodedBlock:
        return CodedBlock(self.data, self.tokens, used)


@dataclass(frozen=True)
class EntropyRows:
    """Coder of one layer. steps [2]: of keys and values; spread [heads, 2 d]: mean size of each coordinate."""

    metric: QueryMetric
    steps: tuple[float, float]
    spread: Floats
    tables: LevelTables
    weighted: bool

    @functools.cached_property
    def row_class(self) -> Ints:
        d = self.spread.shape[1] // 2
        steps = np.repeat(np.float32(self.steps), d)
        classes = np.rint(step_classes.CLASSES * np.log2(np.maximum(self.spread / steps, 1e-9)))
        return (np.clip(classes, -64, 128) + step_classes.MIDDLE).astype(np.int16)

    def coordinates(self, k: Tensor, v: Tensor) -> Floats:
        """y [heads, n, 2 d] of keys and values [heads, n, d]."""
        return torch.cat([self.metric.to(0, k), self.metric.to(1, v)], -1).contiguous().numpy()

    def quantised(self, y: Floats, classes: Ints, head: int) -> tuple[Ints, Floats, Ints]:
        """Levels [n, 2 d] of one head, the tokens' steps [n, 2] and classes of tables [n]."""
        factors = np.exp2(classes.astype(np.float32) / 2)
        steps = (factors[:, None] * np.float32(self.steps)[None]).astype(np.float32)
        columns = (-step_classes.CLASSES // 2 * classes).astype(np.int16)
        chosen = np.empty(y.shape, np.int16)
        kernel.choose(y, steps, self.row_class[head], columns, self.tables.price, chosen)
        return chosen, steps, columns

    def encode(self, k: Tensor, v: Tensor, classes: NDArray[np.int8]) -> list[CodedBlock]:
        """Blocks of keys and values [heads, n, d] of a row; classes [heads, n] of the tokens' steps."""
        y = self.coordinates(k, v)
        blocks = []
        coded = [self.quantised(y[h], classes[h].astype(np.int16), h) for h in range(len(y))]
        for start in range(0, y.shape[1], BLOCK):
            part = slice(start, min(start + BLOCK, y.shape[1]))
            lanes = []
            for head, (chosen, _, columns) in enumerate(coded):
                tables = np.clip(self.row_class[head][None] + columns[part, None], 0, rans.CLASSES - 1)
                lanes.append(rans.encode_lane(np.ascontiguousarray(chosen[part]), tables.astype(np.uint8),
                                              self.tables.packed))  # fmt: skip
            blocks.append(CodedBlock(self._join(lanes, classes[:, part]), part.stop - part.start,
                                     part.stop - part.start))  # fmt: skip
        return blocks

    def _join(self, lanes: list[NDArray[np.uint16]], classes: NDArray[np.int8]) -> bytes:
        """Number of words a lane, three bits a token and head where tokens have weights, words."""
        head = np.array([len(words) for words in lanes], "<u2").tobytes()
        if self.weighted:
            head += np.packbits(_bits(classes + 3), bitorder="little").tobytes()
        return head + b"".join(words.astype("<u2").tobytes() for words in lanes)

    def _split(self, block: CodedBlock) -> tuple[list[NDArray[np.uint16]], NDArray[np.int8]]:
        heads = len(self.spread)
        sizes = np.frombuffer(block.data, "<u2", heads)
        at = 2 * heads
        classes = np.zeros((heads, block.tokens), np.int8)
        if self.weighted:
            count = -(-3 * heads * block.tokens // 8)
            bits = np.unpackbits(np.frombuffer(block.data, np.uint8, count, at), bitorder="little")
            codes = bits[: 3 * classes.size].reshape(-1, 3) @ np.array([1, 2, 4], np.uint8)
            classes = codes.astype(np.int8).reshape(classes.shape) - np.int8(3)
            at += count
        words = np.frombuffer(block.data[at:], "<u2")
        if int(sizes.sum()) != len(words):
            raise bad_input("a block of the cache is damaged", "make the file again")
        return np.split(words, np.cumsum(sizes.astype(np.int64))[:-1]), classes

    def levels(self, blocks: list[CodedBlock]) -> tuple[Ints, NDArray[np.int8]]:
        """Levels [heads, n, 2 d] and classes [heads, n] of all tokens that are coded in blocks."""
        heads, width = self.spread.shape
        parts = [self._split(block) for block in blocks]
        classes = np.concatenate([part[1] for part in parts], 1)
        out = np.empty((heads, classes.shape[1], width), np.int16)
        for head in range(heads):
            columns = (-step_classes.CLASSES // 2 * classes[head]).astype(np.int16)
            for some in _runs(blocks):
                lanes = [parts[i][0][head] for i in some]
                start = sum(block.tokens for block in blocks[: some.start])
                stop = start + sum(blocks[i].tokens for i in some)
                bounds = np.cumsum([0, *map(len, lanes)]).astype(np.int64)
                words = np.concatenate(lanes).astype(np.uint16)
                good = rans_cpu.decode_run(
                    words, bounds, self.row_class[head], columns[start:stop], blocks[some.start].tokens, 1,
                    self.tables.packed, self.tables.symbols, _NO_MACHINE, out[head, start:stop],
                )  # fmt: skip
                if not good:
                    raise bad_input("a block of the cache is damaged", "make the file again")
        return out, classes

    def restored(self, chosen: Ints, classes: NDArray[np.int8]) -> Floats:
        """Coordinates [heads, n, 2 d] of levels."""
        y = np.empty(chosen.shape, np.float32)
        for head in range(len(chosen)):
            factors = np.exp2(classes[head].astype(np.float32) / 2)
            steps = (factors[:, None] * np.float32(self.steps)[None]).astype(np.float32)
            columns = (-step_classes.CLASSES // 2 * classes[head]).astype(np.int16)
            kernel.restore(chosen[head], steps, self.row_class[head], columns, self.tables.centres, y[head])
        return y

    def rounded(self, k: Tensor, v: Tensor, classes: NDArray[np.int8]) -> tuple[Tensor, Tensor]:
        """Keys and values [heads, n, d] as they come back from the code, without the code."""
        y = self.coordinates(k, v)
        chosen = np.stack([self.quantised(y[h], classes[h].astype(np.int16), h)[0] for h in range(len(y))])
        return self._plain(torch.from_numpy(self.restored(chosen, classes)))

    def _plain(self, y: Tensor) -> tuple[Tensor, Tensor]:
        d = y.shape[-1] // 2
        return self.metric.back(0, y[..., :d]), self.metric.back(1, y[..., d:])

    def decode(self, blocks: list[CodedBlock]) -> tuple[Tensor, Tensor]:
        """Keys and values [heads, n, d] of what is still used of the blocks."""
        chosen, classes = self.levels(blocks)
        y = self.restored(chosen, classes)
        used = np.concatenate([np.arange(block.tokens) < block.used for block in blocks])
        return self._plain(torch.from_numpy(y if used.all() else np.ascontiguousarray(y[:, used])))

    def agreement(self, y: Floats, classes: NDArray[np.int8], sums: NDArray[np.float64]) -> None:
        """Add to `sums` [64, 2, 3] how what is restored goes with the coordinates y [heads, n, 2 d]."""
        coded = [self.quantised(y[h], classes[h].astype(np.int16), h) for h in range(len(y))]
        back = self.restored(np.stack([one[0] for one in coded]), classes)
        for head, (_, steps, columns) in enumerate(coded):
            kernel.agreement(y[head], back[head], steps, self.row_class[head], columns, sums)

    def measure(self, y: Floats, classes: NDArray[np.int8], counts: LevelCounts | None = None) -> float:
        """Bits of coordinates [heads, n, 2 d] under the tables, block starts and classes included.

        counts: gathers what occurred.
        """
        total = 0.0
        for head in range(len(y)):
            chosen, steps, columns = self.quantised(y[head], classes[head].astype(np.int16), head)
            seen = counts or LevelCounts()
            before = seen.counts.copy()
            kernel.count(chosen, y[head], steps, self.row_class[head], columns, seen.counts, seen.sums)
            total += rans.cost_bits(self.tables.frequencies, seen.counts - before)
        blocks = -(-y.shape[1] // BLOCK)
        return total + len(y) * (48 * blocks + (3 * y.shape[1] if self.weighted else 0))


def _bits(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    flat = codes.astype(np.uint8).reshape(-1, 1)
    return (flat >> np.array([0, 1, 2], np.uint8) & 1).reshape(-1)


def _runs(blocks: list[CodedBlock]) -> list[range]:
    """Blocks of one length in a row, the last of them maybe shorter: what one call decodes."""
    runs, start = [], 0
    for i in range(1, len(blocks) + 1):
        ends = i == len(blocks) or blocks[i - 1].tokens < blocks[start].tokens
        if ends or blocks[i].tokens > blocks[start].tokens:
            runs.append(range(start, i))
            start = i
    return runs
