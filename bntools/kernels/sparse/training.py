"""One step of gradient descent on a sparse dictionary, its cost that of the pairs in use and not of all latents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.kernels.sparse import loops
from bntools.kernels.sparse.selection import Floats, Ints, SparseEncoder, Support
from bntools.kernels.sparse.threads import spread

DECAY = (0.9, 0.999)


class Adam:
    """Adam (Kingma and Ba 2015) on one array, in place."""

    def __init__(self, value: Floats) -> None:
        self.value, self.first, self.second = value, np.zeros_like(value), np.zeros_like(value)

    def step(self, gradient: Floats, rate: float, count: int) -> None:
        """count: of this step, from 1."""
        self.first += np.float32(1 - DECAY[0]) * (gradient - self.first)
        self.second += np.float32(1 - DECAY[1]) * (gradient * gradient - self.second)
        root = np.sqrt(self.second / np.float32(1 - DECAY[1] ** count)) + np.float32(1e-8)
        self.value -= np.float32(rate / (1 - DECAY[0] ** count)) * self.first / root


class Residual(NamedTuple):
    """G [levels, B, d]: the gradient a latent of a level sees; pulls [pairs]: that by each code; errors [levels, B]."""

    G: Floats
    pulls: Floats
    errors: NDArray[np.float64]


class Extra(NamedTuple):
    """Gradients of some latents from elsewhere, to be added: latents [n], by_D and by_E [n, d], by_bias [n]."""

    latents: Ints
    by_D: Floats
    by_E: Floats
    by_bias: Floats


class SparseWeights:
    """SparseEncoder E [m, d], be [m], decoder D [m, d] of unit rows, bd [d], and their moments.

    Starts from random directions, the encoder tied to the decoder. half: take scores in bfloat16.
    """

    def __init__(
        self, latents: int, width: int, rng: np.random.Generator, half: bool, threads: int = 1
    ) -> None:
        self.D = rng.standard_normal((latents, width), np.float32)
        self.D /= np.linalg.norm(self.D, axis=1, keepdims=True)
        self.E = self.D.copy()
        self.be, self.bd = Adam(np.zeros(latents, np.float32)), Adam(np.zeros(width, np.float32))
        self.moments = [np.zeros_like(self.D) for _ in range(4)]
        self.half = torch.from_numpy(self.E).bfloat16() if half else None
        self.threads, self.steps = threads, 0
        self._G = np.empty((0, 0, 0), np.float32)

    def encoder(self, bias: Floats | None = None) -> SparseEncoder:
        return SparseEncoder(self.E, self.be.value if bias is None else bias, self.half)

    def residual(self, X: Floats, support: Support, ends: Ints, scale: float) -> Residual:
        """Decode, and the gradient of scale * sum over prefixes of |xhat - x|^2; ends: the prefixes, the last one m."""
        G = np.empty((len(ends), *X.shape), np.float32)
        pulls, errors = np.empty(len(support.latents), np.float32), np.empty((len(ends), len(X)))
        D, bd, (indptr, latents, values) = self.D, self.bd.value, support
        spread(
            lambda a, b: loops.residuals(
                X, D, bd, indptr, latents, values, ends, scale, a, b, G, pulls, errors
            ),
            len(X),
            self.threads,
        )
        return Residual(G, pulls, errors)

    def descend(
        self, X: Floats, found: Residual, support: Support, slopes: Floats, ends: Ints, *, rate: float,
        extra: Extra | None = None, bias: bool = True,
    ) -> Floats:  # fmt: skip
        """One step of Adam. X: what the encoder saw, rows less bd. slopes: the gradient by each pair's score.

        Returns the gradient by each latent's score summed over rows [m]. bias: be moves by it.
        """
        m = len(self.D)
        self.steps += 1
        corrections = (*DECAY, 1 - DECAY[0] ** self.steps, 1 - DECAY[1] ** self.steps)
        starts, order = np.empty(m + 1, np.int64), np.empty(len(slopes), np.int64)
        loops.by_latent(support.latents, starts, order)
        levels = np.searchsorted(ends, support.latents, "right").astype(np.uint8)
        place, more = np.full(m, -1, np.int32), np.zeros((2, 1, X.shape[1]), np.float32)
        by_bias = np.bincount(support.latents, slopes, m).astype(np.float32)
        by_bd = found.G[0].sum(0)
        if extra is not None:
            place[extra.latents] = np.arange(len(extra.latents), dtype=np.int32)
            by_bias[extra.latents] += extra.by_bias
        by_bd -= by_bias @ self.E
        more_D, more_E = (more[0], more[1]) if extra is None else (extra.by_D, extra.by_E)
        rows, values, G = support.pair_rows, support.values, found.G
        spread(
            lambda a, b: loops.descend(
                X, G, rows, levels, values, slopes, starts, order, place, more_D, more_E, rate, corrections, a, b,
                self.D, self.E, *self.moments,
            ),
            m,
            self.threads,
        )  # fmt: skip
        if bias:
            self.be.step(by_bias, rate, self.steps)
        self.bd.step(by_bd, rate, self.steps)
        self.refresh()
        return by_bias

    def refresh(self) -> None:
        """Round the encoder to bfloat16 anew."""
        if self.half is not None:
            self.half.copy_(torch.from_numpy(self.E))


def revive(
    weights: SparseWeights, X: Floats, residual: Floats, dead: Ints, count: int, scale: float
) -> tuple[Extra, float]:
    """AuxK (Gao et al. 2024): the `count` largest scores of dead latents shall explain what is left of each row.

    X: what the encoder sees [B, d]; residual: x - xhat [B, d]. Returns the gradients of
    scale * sum |residual - ehat|^2 by the dead latents, and that sum.
    """
    x, e = torch.from_numpy(X), torch.from_numpy(residual)
    D, E = torch.from_numpy(weights.D[dead]), torch.from_numpy(weights.E[dead])
    scores = torch.addmm(torch.from_numpy(weights.be.value[dead]), x, E.T)
    if count < len(dead):
        least = scores.topk(count, 1).values[:, -1:]
        scores = torch.where(scores >= least, scores, 0)
    codes = scores.relu_()
    left = codes @ D - e
    gradient = 2 * scale * left
    slopes = (gradient @ D.T) * (codes > 0)
    by_D, by_E = (codes.T @ gradient).numpy(), (slopes.T @ x).numpy()
    extra = Extra(dead, by_D, by_E, slopes.sum(0).numpy())
    return extra, float(left.square().sum())
