"""Which latents of a dictionary a row uses: scores by one product of matrices, the choice exact in float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.sparse import loops
from bntools.kernels.sparse.threads import spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Keys = NDArray[np.int16]
SLACK = 2
"""Steps of bfloat16 that a score may be off: half of one by its own rounding, a fifth by that of the factors."""


MARGIN = 2.0**-7
"""Times |x| |E_j| / sqrt(d): four standard deviations of what rounding the factors to bfloat16 does to a product."""


class Support(NamedTuple):
    """Pairs of row and latent: those of row r are indptr[r]..indptr[r + 1] of latents and values (float32)."""

    indptr: NDArray[np.int64]
    latents: Ints
    values: Floats

    @property
    def pair_rows(self) -> Ints:
        """The row of each pair."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int32), np.diff(self.indptr))

    def padded(self, k: int | None = None) -> tuple[Ints, Floats]:
        """latents and values as [B, k], 0 where a row has fewer; the largest k where a row has more."""
        counts = np.diff(self.indptr)
        k = int(counts.max(initial=1)) if k is None else k
        latents, values = np.zeros((len(counts), k), np.int32), np.zeros((len(counts), k), np.float32)
        rows = self.pair_rows
        order = np.lexsort((self.latents, -self.values, rows))
        place = np.arange(len(order)) - self.indptr[:-1][rows]
        fits = place < k
        latents[rows[fits], place[fits]] = self.latents[order][fits]
        values[rows[fits], place[fits]] = self.values[order][fits]
        return latents, values


class SparseEncoder(NamedTuple):
    """Scores are X E^T + bias. E [m, d] and bias [m] float32; half: E in bfloat16 where scores are taken in it."""

    E: Floats
    bias: Floats
    half: Tensor | None = None

    def keys(self, X: Floats) -> Keys:
        """Scores [B, m] rounded to bfloat16, read as int16: of positive ones the order is that of the numbers."""
        x, bias = torch.from_numpy(X), torch.from_numpy(self.bias)
        if self.half is not None:
            scores = torch.addmm(bias.bfloat16(), x.bfloat16(), self.half.T)
        else:
            scores = torch.addmm(bias, x, torch.from_numpy(self.E).T).bfloat16()
        return scores.view(torch.int16).numpy()


def key_of(values: Floats | float) -> Keys:
    """The key of scores: bfloat16 bits, 0 for what is not positive."""
    return torch.as_tensor(np.maximum(values, 0), dtype=torch.float32).bfloat16().view(torch.int16).numpy()


def top(encoder: SparseEncoder, X: Floats, k: int, threads: int = 1) -> tuple[Ints, Floats]:
    """The k largest positive scores of each row: latents and values [B, k], descending, ties to the lower latent.

    Rows with fewer positive scores are filled up with 0.
    """
    latents, values, counts = _scored(encoder, X, k, threads)
    chosen, kept = np.empty((len(X), k), np.int32), np.empty((len(X), k), np.float32)
    spread(lambda a, b: loops.largest(latents, values, counts, k, a, b, chosen, kept), len(X), threads)
    return chosen, kept


def top_reference(encoder: SparseEncoder, X: Floats, k: int) -> tuple[Ints, Floats]:
    """The specification of `top`."""
    scores = np.maximum(X @ encoder.E.T + encoder.bias, 0)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, 1)
    return np.where(values > 0, order, 0).astype(np.int32), values


def candidates(encoder: SparseEncoder, X: Floats, k: int, threads: int = 1) -> tuple[Ints, Ints]:
    """About the k latents of the largest positive scores of each row, unordered: latents [B, room], counts [B]."""
    keys = encoder.keys(X)
    limits = np.empty(len(X), np.int16)
    spread(lambda a, b: loops.thresholds(keys, k, 0, a, b, limits), len(X), threads)
    return _above(keys, limits, min(k, keys.shape[1]), threads)


def top_of_batch(encoder: SparseEncoder, X: Floats, total: int, threads: int = 1) -> Support:
    """The `total` largest positive scores of all rows together; ties to the earlier row, then latent."""
    keys = encoder.keys(X)
    flat = keys.reshape(-1)
    limit = int(np.partition(flat, len(flat) - total)[len(flat) - total])
    limits = lowered(encoder, X, np.full(len(X), max(limit, 1), np.int16))
    latents, counts = _above(keys, limits, int((keys >= limits[:, None]).sum(1).max(initial=1)), threads)
    activations = _values(encoder, X, latents, counts, threads)
    values = activations.values
    if len(values) > total:
        least = np.partition(values, len(values) - total)[len(values) - total]
        keep = values > least
        ties = np.flatnonzero(values == least)[: total - int(keep.sum())]
        keep[ties] = True
        return only(activations, keep & (values > 0))
    return only(activations, values > 0)


def beyond(encoder: SparseEncoder, X: Floats, theta: Floats, threads: int = 1) -> Support:
    """All scores above theta [m], which is not negative."""
    keys = encoder.keys(X)
    limits = np.maximum(key_of(theta).astype(np.int32) - SLACK, 1).astype(np.int16)
    room = int((keys >= limits).sum(1).max(initial=1))
    latents, counts = np.empty((len(X), max(room, 1)), np.int32), np.empty(len(X), np.int32)
    spread(lambda a, b: loops.reach(keys, limits, room, a, b, latents, counts), len(X), threads)
    values = _values(encoder, X, latents, counts, threads)
    return only(values, values.values > theta[values.latents])


def only(support: Support, keep: NDArray[np.bool_]) -> Support:
    """Some of the pairs."""
    kept = np.concatenate([[0], np.cumsum(keep)])
    return Support(kept[support.indptr], support.latents[keep], support.values[keep])


def full(latents: Ints, values: Floats) -> Support:
    """The support of codes [B, k]."""
    rows, k = latents.shape
    return Support(np.arange(0, rows * k + 1, k), latents.reshape(-1), values.reshape(-1))


def _scored(encoder: SparseEncoder, X: Floats, k: int, threads: int) -> tuple[Ints, Floats, Ints]:
    """Candidates that surely hold the k largest, with their exact scores."""
    keys = encoder.keys(X)
    limits = np.empty(len(X), np.int16)
    spread(lambda a, b: loops.thresholds(keys, k, 0, a, b, limits), len(X), threads)
    limits = lowered(encoder, X, limits)
    room = int((keys >= limits[:, None]).sum(1).max(initial=1))
    latents, counts = _above(keys, limits, max(room, 1), threads)
    values = np.empty(latents.shape, np.float32)
    E, bias = encoder.E, encoder.bias
    spread(lambda a, b: loops.dots(X, E, bias, latents, counts, a, b, values), len(X), threads)
    return latents, values, counts


def lowered(encoder: SparseEncoder, X: Floats, limits: Keys) -> Keys:
    """Row limits lowered by what rounding may have moved a score: steps of its own, and that of bfloat16 factors."""
    if encoder.half is None:
        return np.maximum(limits - np.int16(1), 1).astype(np.int16)
    values = torch.from_numpy(limits).view(torch.bfloat16).float().numpy()
    lengths = np.sqrt(np.einsum("nd,nd->n", X, X))
    longest = np.sqrt(np.einsum("md,md->m", encoder.E, encoder.E).max())
    margin = MARGIN * lengths * longest / np.sqrt(X.shape[1])
    return np.maximum(key_of(values - margin).astype(np.int32) - SLACK, 1).astype(np.int16)


def _above(keys: Keys, limits: Keys, room: int, threads: int) -> tuple[Ints, Ints]:
    latents, counts = np.empty((len(keys), max(room, 1)), np.int32), np.empty(len(keys), np.int32)
    spread(lambda a, b: loops.above(keys, limits, room, a, b, latents, counts), len(keys), threads)
    return latents, counts


def _values(encoder: SparseEncoder, X: Floats, latents: Ints, counts: Ints, threads: int) -> Support:
    """Exact scores of candidates, as a support."""
    values = np.empty(latents.shape, np.float32)
    spread(
        lambda a, b: loops.dots(X, encoder.E, encoder.bias, latents, counts, a, b, values), len(X), threads
    )
    valid = np.arange(latents.shape[1]) < counts[:, None]
    return Support(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), latents[valid], values[valid])
