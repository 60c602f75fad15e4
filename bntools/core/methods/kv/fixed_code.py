"""The code `fixed`: a few levels a coordinate, packed rows of whole bytes, the worst tokens kept in 16 bits."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.methods.kv.entropy_code import BLOCK, CodedBlock
from bntools.core.methods.kv.metric import QueryMetric
from bntools.kernels.attention import attend_cpu, packed_rows

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
        weight = np.repeat(np.array(self.sensitivity, np.float32), half)
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
        packed: list[list[Codes]] = [[] for _ in range(heads)]
        values = [[np.zeros((0, width), np.float16)] for _ in range(heads)]
        marks = [np.zeros((heads, 0), bool)]
        for tokens, run in itertools.groupby(blocks, key=lambda block: block.tokens):
            data, bits, exact = self._split([block.data for block in run], tokens)
            at = 0
            for h in range(heads):
                size = packed_rows.row_bytes(self.widths[h])
                packed[h].append(data[:, at : at + size * tokens].reshape(-1, size))
                at += size * tokens
            owner = np.nonzero(bits.reshape(-1, tokens))[0] % heads
            for h in range(heads):
                values[h].append(exact[owner == h])
            marks.append(bits.transpose(1, 0, 2).reshape(heads, -1))
        joined = [np.concatenate(parts) for parts in packed]
        return joined, np.concatenate(marks, 1), [np.concatenate(parts) for parts in values]

    def _split(self, datas: list[bytes], tokens: int) -> tuple[Codes, NDArray[np.bool_], NDArray[np.float16]]:
        """Of blocks of so many tokens: bytes of rows [blocks, ...], marks [blocks, heads, tokens], exact values."""
        heads, width = self.widths.shape
        fixed = tokens * sum(packed_rows.row_bytes(row) for row in self.widths)
        count = -(-heads * tokens // 8) if np.isfinite(self.limit).any() else 0
        tails = b"".join(data[fixed + count :] for data in datas)
        bits = np.zeros((len(datas), heads, tokens), bool)
        whole = all(len(data) >= fixed + count for data in datas)
        if whole:
            rows = np.frombuffer(b"".join(data[: fixed + count] for data in datas), np.uint8)
            rows = rows.reshape(len(datas), -1)
            flags = np.unpackbits(
                rows[:, fixed:], axis=1, bitorder="little", count=heads * tokens if count else 0
            )
            bits = flags.reshape(bits.shape).astype(bool) if count else bits
            sizes = [len(data) - fixed - count for data in datas]
            if sizes == (2 * width * bits.sum((1, 2))).tolist():
                return rows[:, :fixed], bits, np.frombuffer(tails, "<f2").reshape(-1, width)
        raise bad_input("a block of the cache is damaged", "make the file again")

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

    def select(self, blocks: list[CodedBlock]) -> list[tuple[Codes, Floats]]:
        """What is used of the blocks, a head: packed rows [n, bytes] of coded tokens, exact ones [m, 2 d]."""
        packed, marks, exact = self.rows(blocks)
        used = np.concatenate([np.arange(block.tokens) < block.used for block in blocks])
        if used.all() and not marks.any():
            return [(rows, np.zeros((0, self.widths.shape[1]), np.float32)) for rows in packed]
        return [
            (packed[h][used & ~marks[h]], exact[h][used[marks[h]]].astype(np.float32)) for h in range(len(packed))
        ]  # fmt: skip

    def parts(self, head: int, q: Tensor, rows: Codes, exact: Floats) -> list[tuple[Tensor, Tensor]]:
        """Log of the sum of exp(logit) [groups] and attention [groups, d] over coded and over exact tokens of a head.

        q [groups, d]: queries that share it, times the factor of the logits.
        """
        d, mean, parts = q.shape[-1], self.metric.mean[:, head], []
        if len(rows):
            inner = ((q @ self.metric.inverse[0, head]).numpy(), rows, self.widths[head], self.values[head])
            top, total, mixed = map(torch.from_numpy, attend_cpu.parts(*inner, (q @ mean[0]).numpy()))
            coded = (mixed / total[:, None]) @ self.metric.inverse[1, head].T + mean[1]
            parts.append((top + total.log(), coded))
        if len(exact):
            plain = torch.from_numpy(exact)
            logits = q @ plain[:, :d].T
            parts.append((logits.logsumexp(1), logits.softmax(1) @ plain[:, d:]))
        return parts

    def attend(self, head: int, query: Tensor, blocks: list[CodedBlock], scaling: float) -> Tensor:
        """Attention [groups, d] of the queries [groups, d] that share a key head over all tokens of the blocks.

        Reads the rows as they are packed; only the exact tokens are attended to as plain ones.
        """
        return join_parts(self.parts(head, query.float() * scaling, *self.select(blocks)[head]))


def join_parts(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention [groups, d] over all tokens from that over parts of them, each with the log of its sum [groups]."""
    share = torch.stack([part[0] for part in parts]).softmax(0)
    return (share[..., None] * torch.stack([part[1] for part in parts])).sum(0)
