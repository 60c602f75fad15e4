"""The code `fixed`: a few levels a coordinate, packed rows of whole bytes, the worst tokens kept in 16 bits."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.methods.kv.entropy_code import BLOCK, CodedBlock
from bntools.core.methods.kv.metric import QueryMetric
from bntools.kernels.attention import packed_rows

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
MOST = 6
"""Bits of a coordinate at most."""


@dataclass(frozen=True)
class FixedRows:
    """Coder of one layer. widths, scale [heads, 2 d]: bits and standard deviation of each coordinate.

    levels: by bits, of unit deviation. limit [heads]: weighted error from which on a token is kept exact; sensitivity
    [2]: weight of the errors of keys and of values. gains: by bits, of restored values, whose errors are averaged.
    """

    metric: QueryMetric
    widths: Codes
    scale: Floats
    levels: tuple[Floats, ...]
    limit: Floats
    sensitivity: tuple[float, float]
    gains: Floats | None = None

    @property
    def weighted(self) -> bool:
        return False

    @functools.cached_property
    def values(self) -> Floats:
        """Value of each code of each coordinate: [heads, 2 d, 2^6]."""
        heads, width = self.widths.shape
        table = np.zeros((heads, width, 1 << MOST), np.float32)
        for bits, some in enumerate(self.levels):
            table[self.widths == bits, : len(some)] = some
        if self.gains is not None:
            table[:, width // 2 :] *= self.gains[self.widths[:, width // 2 :]][..., None]
        return table * self.scale[..., None]

    def coordinates(self, k: Tensor, v: Tensor) -> Floats:
        return torch.cat([self.metric.to(0, k), self.metric.to(1, v)], -1).contiguous().numpy()

    def codes(self, y: Floats) -> tuple[Codes, Floats]:
        """Codes [heads, n, 2 d] and each token's weighted squared error [heads, n]."""
        out, restored = np.zeros(y.shape, np.uint8), np.zeros(y.shape, np.float32)
        for bits, some in enumerate(self.levels):
            heads, rows = np.nonzero(self.widths == bits)
            if len(heads) and bits:
                x = y[heads, :, rows] / self.scale[heads, rows][:, None]
                chosen = np.searchsorted((some[1:] + some[:-1]) / 2, x).astype(np.uint8)
                out[heads, :, rows] = chosen
                restored[heads, :, rows] = some[chosen] * self.scale[heads, rows][:, None]
        half = y.shape[2] // 2
        weight = np.repeat(np.float32(self.sensitivity), half)
        return out, ((y - restored) ** 2 * weight).sum(-1)

    def encode(self, k: Tensor, v: Tensor, classes: NDArray[np.int8]) -> list[CodedBlock]:
        """Blocks of keys and values [heads, n, d]; classes are of no account here."""
        codes, error = self.codes(self.coordinates(k, v))
        exact = error > self.limit[:, None]
        plain = torch.cat([k, v], -1).to(torch.float16).numpy()
        blocks = []
        for start in range(0, codes.shape[1], BLOCK):
            part = slice(start, min(start + BLOCK, codes.shape[1]))
            data = b"".join(
                packed_rows.pack(codes[h, part], self.widths[h]).tobytes() for h in range(len(codes))
            )
            if np.isfinite(self.limit).any():
                data += (
                    np.packbits(exact[:, part], bitorder="little").tobytes()
                    + plain[:, part][exact[:, part]].tobytes()
                )
            blocks.append(CodedBlock(data, part.stop - part.start, part.stop - part.start))
        return blocks

    def rows(
        self, blocks: list[CodedBlock]
    ) -> tuple[list[Codes], NDArray[np.bool_], list[NDArray[np.float16]]]:
        """Packed rows [n, bytes] of each head, which tokens are exact [heads, n], and their values a head."""
        heads, width = self.widths.shape
        sizes = [packed_rows.row_bytes(self.widths[h]) for h in range(heads)]
        packed: list[list[Codes]] = [[] for _ in range(heads)]
        marks, values = [], [[np.zeros((0, width), np.float16)] for _ in range(heads)]
        for block in blocks:
            at = 0
            for h, size in enumerate(sizes):
                packed[h].append(
                    np.frombuffer(block.data, np.uint8, size * block.tokens, at).reshape(-1, size)
                )
                at += size * block.tokens
            mark = np.zeros((heads, block.tokens), bool)
            if np.isfinite(self.limit).any():
                count = -(-heads * block.tokens // 8)
                bits = np.unpackbits(np.frombuffer(block.data, np.uint8, count, at), bitorder="little")
                mark = bits[: mark.size].reshape(mark.shape).astype(bool)
                some = np.frombuffer(block.data[at + count :], "<f2").reshape(-1, width)
                if len(some) != mark.sum():
                    raise bad_input("a block of the cache is damaged", "make the file again")
                for h, part in enumerate(np.split(some, np.cumsum(mark.sum(1))[:-1])):
                    values[h].append(part)
            marks.append(mark)
        joined = [np.concatenate(parts) for parts in packed]
        return joined, np.concatenate(marks, 1), [np.concatenate(parts) for parts in values]

    def decode(self, blocks: list[CodedBlock]) -> tuple[Tensor, Tensor]:
        """Keys and values [heads, n, d] of what is still used of the blocks."""
        packed, marks, exact = self.rows(blocks)
        heads, width = self.widths.shape
        y = np.empty((heads, marks.shape[1], width), np.float32)
        for h in range(heads):
            codes = packed_rows.unpack(packed[h], self.widths[h])
            y[h] = self.values[h][np.arange(width)[None], codes]
        rows, d = torch.from_numpy(y), width // 2
        both = torch.cat([self.metric.back(0, rows[..., :d]), self.metric.back(1, rows[..., d:])], -1)
        for h in range(heads):
            if len(exact[h]):
                both[h, torch.from_numpy(marks[h])] = torch.from_numpy(exact[h].astype(np.float32))
        used = np.concatenate([np.arange(block.tokens) < block.used for block in blocks])
        both = both if used.all() else both[:, torch.from_numpy(used)]
        return both[..., :d], both[..., d:]
