"""Attention of blocks of queries to chosen blocks of keys, gathered and not masked, so that it costs what it reads.

At 90 % sparsity a tenth of the N^2 d products of dense attention is left, and no N x N array exists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK, ROWS = 32, 64
"""Keys and queries a block. Fewer queries make products too small for a CPU, more follow a band less closely."""


class BlockTable(NamedTuple):
    """keys [query blocks, m] int64: the key blocks of each query block, distinct and rising, m the same for all.

    tokens: in a row, without the `dense` last ones, which see everything and are seen by all (text). block, rows: keys
    and queries a block; of the last blocks only what exists is seen.
    """

    keys: Tensor
    tokens: int
    dense: int = 0
    block: int = BLOCK
    rows: int = ROWS

    @property
    def blocks(self) -> int:
        """Key blocks there are."""
        return -(-self.tokens // self.block)

    @property
    def full(self) -> bool:
        """Whether every query sees every key."""
        return self.keys.shape[1] == self.blocks

    def mask(self) -> Tensor:
        """The same as a mask [tokens + dense, tokens + dense], True where a query sees a key: the definition."""
        seen = torch.zeros(len(self.keys), self.blocks, dtype=torch.bool).scatter_(1, self.keys, True)
        body = seen.repeat_interleave(self.rows, 0).repeat_interleave(self.block, 1)[
            : self.tokens, : self.tokens
        ]
        return F.pad(body, (0, self.dense, 0, self.dense), value=True)

    @property
    def sparsity(self) -> float:
        """Share of the products of queries and keys that are left out."""
        keys, queries = (
            torch.full((-(-self.tokens // size),), float(size)) for size in (self.block, self.rows)
        )
        keys[-1] -= len(keys) * self.block - self.tokens
        queries[-1] -= len(queries) * self.rows - self.tokens
        seen = float((queries * keys[self.keys].sum(1)).sum()) + self.dense * (2 * self.tokens + self.dense)
        return 1 - seen / (self.tokens + self.dense) ** 2


def band(tokens: int, sparsity: float, *, dense: int = 0, frames: int = 1) -> BlockTable:
    """A window around each block of queries, as wide as the sparsity allows, moved inside at the borders.

    At least the block itself is seen.

    frames: the tokens are so many frames of equal length, and the window is repeated in each (the paper's for video);
    where a frame is no whole number of blocks, one band over all. sparsity 0: all blocks.
    """
    if frames > 1 and tokens % (frames * ROWS) == 0:
        inner = band(tokens // frames, sparsity).keys
        steps = torch.arange(frames) * (tokens // frames // BLOCK)
        keys = (inner[:, None] + steps[:, None]).flatten(1).repeat(frames, 1)
        return BlockTable(keys, tokens, dense)
    count, queries = -(-tokens // BLOCK), -(-tokens // ROWS)
    width = min(count, max(ROWS // BLOCK, round((1 - sparsity) * count)))
    first = (torch.arange(queries) * (ROWS // BLOCK) + (ROWS // BLOCK - width) // 2).clamp(0, count - width)
    return BlockTable(first[:, None] + torch.arange(width), tokens, dense)


def sparse_attention(q: Tensor, k: Tensor, v: Tensor, table: BlockTable) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d)) v over the blocks of the table; q, k, v [N, heads, tokens + dense, d].

    Returns the output and log-sum-exp [N, heads, tokens + dense] of the scores that were seen.
    """
    body, extra = table.tokens, table.dense
    mixed, lse = _by_blocks(q[:, :, :body], k, v, table)
    if extra:
        rest, rest_lse = dense_attention(q[:, :, body:], k, v)
        mixed, lse = torch.cat([mixed, rest], 2), torch.cat([lse, rest_lse], 2)
    return mixed, lse


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, table: BlockTable) -> tuple[Tensor, Tensor]:
    """Sparse rows: every block of queries against its own gathered keys, one batched product for all."""
    batch, heads, tokens, width = q.shape
    (count, seen), block = table.keys.shape, table.block
    queries = _padded(q * width**-0.5, tokens, count * table.rows).reshape(-1, table.rows, width)
    keys, values = (_gathered(_padded(x, tokens, table.blocks * block), table) for x in (k, v))
    if table.dense:
        keys, values = (
            torch.cat([x, text[:, :, tokens:].flatten(0, 1).repeat_interleave(count, 0)], 1)
            for x, text in ((keys, k), (values, v))
        )
    scores = torch.bmm(queries, keys.transpose(1, 2))
    excess = table.blocks * block - tokens
    if excess:
        last = scores.view(batch * heads, count, table.rows, -1)[..., : seen * block].unflatten(
            3, (seen, block)
        )
        last[..., block - excess :].masked_fill_(
            (table.keys == table.blocks - 1)[:, None, :, None], -torch.inf
        )
    top = scores.amax(2, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(2, keepdim=True)
    mixed = torch.bmm(weights, values).div_(total)
    lse = (top + total.log()).view(batch, heads, -1)[:, :, :tokens]
    return mixed.view(batch, heads, -1, width)[:, :, :tokens], lse


def _padded(x: Tensor, tokens: int, wanted: int) -> Tensor:
    """The first tokens of x [N, heads, T, d] and zeros up to so many: [N * heads, wanted, d]."""
    body = x[:, :, :tokens].flatten(0, 1)
    return body if wanted == tokens else F.pad(body, (0, 0, 0, wanted - tokens))


def _gathered(x: Tensor, table: BlockTable) -> Tensor:
    """x [R, blocks * block, d] to the chosen rows of each query block: [R * query blocks, m * block, d]."""
    rows, _, width = x.shape
    picked = x.reshape(rows, table.blocks, table.block * width).index_select(1, table.keys.flatten())
    return picked.view(rows * len(table.keys), -1, width)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, rows: int = 256) -> tuple[Tensor, Tensor]:
    """Attention to all keys with log-sum-exp [N, heads, T], some rows of queries at a time."""
    mixed, sums = [], []
    for part in (q * q.shape[-1] ** -0.5).split(rows, 2):
        scores = part @ k.transpose(-1, -2)
        lse = torch.logsumexp(scores, -1)
        mixed.append(torch.exp(scores - lse[..., None]) @ v)
        sums.append(lse)
    return torch.cat(mixed, 2), torch.cat(sums, 2)
