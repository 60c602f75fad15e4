"""Pursuit: the support and coefficients of a row chosen one latent after the other, each time refitted to all."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.sparse.threads import spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_PIVOT = 1e-4
"""A latent of which less than this share of its length is new to those chosen adds nothing but noise."""
LARGEST_GRAM = 8192
"""Latents up to which the Gram matrix is held, 256 MiB of float32; beyond, its entries are computed when needed."""


class PursuitRules(NamedTuple):
    """k: latents a row at most. budget: stop a row at this share of its energy. nonnegative: drop coefficients below
    zero and refit once. greedy: choose by correlation (orthogonal matching pursuit), not by the error that is left
    (orthogonal least squares)."""

    k: int
    budget: float = 0.0
    nonnegative: bool = True
    greedy: bool = False


def pursue(
    D: Floats,
    X: Floats,
    latents: Ints,
    counts: Ints,
    rules: PursuitRules,
    *,
    gram: Floats | None = None,
    threads: int = 1,
) -> tuple[Ints, Floats]:
    """Codes of rows X [B, d] in the unit rows of D [m, d]: latents int32 and coefficients [B, k], 0 where unused.

    latents [B, room], counts [B]: the candidates of each row. gram: D D^T, where it is at hand. Each step takes the
    candidate that leaves the smallest error once all coefficients are refitted (Chen, Billings, Luo 1989), by
    Gram-Schmidt on inner products: k^2 C / 2 operations a row for C candidates.
    """
    chosen = np.zeros((len(X), rules.k), np.int32)
    values = np.zeros((len(X), rules.k), np.float32)
    held = np.empty((0, 0), np.float32) if gram is None else gram
    spread(
        lambda a, b: _pursue(
            D, X, latents, counts, held, rules.k, rules.budget, rules.nonnegative, rules.greedy, a, b, chosen, values
        ),
        len(X),
        threads,
    )  # fmt: skip
    return chosen, values


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _pursue(
    D: Floats, X: Floats, latents: Ints, counts: Ints, gram: Floats, k: int, budget: float, nonnegative: bool,
    greedy: bool, start: int, stop: int, chosen: Ints, values: Floats,
) -> None:  # fmt: skip
    """W[t, i] = q_t . D_i for the orthonormal q_t of the latents chosen; free[i] = 1 - sum of squares of W[:, i]."""
    d, room = X.shape[1], latents.shape[1]
    h, free, W = np.empty(room, np.float32), np.empty(room, np.float32), np.empty((k, room), np.float32)
    y, places, column = np.empty(k, np.float32), np.empty(k, np.int64), np.empty(room, np.float32)
    for r in range(start, stop):
        count, energy = counts[r], np.float32(0)
        for c in range(d):
            energy += X[r, c] * X[r, c]
        for i in range(count):
            j, total = latents[r, i], np.float32(0)
            for c in range(d):
                total += X[r, c] * D[j, c]
            h[i], free[i] = total, 1
        left, used = energy, 0
        while used < min(k, count) and left > budget * energy:
            best, score = -1, np.float32(0)
            for i in range(count):
                if h[i] > 0 and free[i] > _PIVOT:
                    gain = h[i] * h[i] if greedy else h[i] * h[i] / free[i]
                    if gain > score:
                        best, score = i, gain
            if best < 0:
                break
            j, root = latents[r, best], np.float32(1) / np.sqrt(free[best])
            if gram.shape[0] > 0:
                for i in range(count):
                    column[i] = gram[j, latents[r, i]]
            else:
                for i in range(count):
                    other, total = latents[r, i], np.float32(0)
                    for c in range(d):
                        total += D[j, c] * D[other, c]
                    column[i] = total
            for t in range(used):
                weight = W[t, best]
                for i in range(count):
                    column[i] -= weight * W[t, i]
            step = h[best] * root
            for i in range(count):
                w = column[i] * root
                W[used, i] = w
                h[i] -= step * w
                free[i] -= w * w
            y[used], places[used] = step, best
            free[best], h[best] = 0, 0
            left -= step * step
            used += 1
        negative = _solve(W, y, places, used, values[r])
        if negative > 0 and nonnegative:
            used = _without_negatives(D, gram, latents[r], X[r], places, used, values[r])
        for t in range(used):
            chosen[r, t] = latents[r, places[t]]


@numba.njit(cache=True, nogil=True)
def _solve(W: Floats, y: Floats, places: NDArray[np.int64], used: int, out: Floats) -> int:
    """Coefficients from the triangle W[s, places[t]]; how many are negative."""
    negative = 0
    for t in range(used - 1, -1, -1):
        total = y[t]
        for s in range(t + 1, used):
            total -= W[t, places[s]] * out[s]
        out[t] = total / W[t, places[t]]
        negative += out[t] < 0
    return negative


@numba.njit(cache=True, nogil=True)
def _without_negatives(
    D: Floats, gram: Floats, latents: Ints, x: Floats, places: NDArray[np.int64], used: int, out: Floats
) -> int:
    """Drop what is negative and refit the others by a Cholesky factor; what is then still negative becomes 0."""
    kept = 0
    for t in range(used):
        if out[t] > 0:
            places[kept] = places[t]
            kept += 1
    L, y = np.zeros((kept, kept), np.float32), np.empty(kept, np.float32)
    for t in range(kept):
        a = latents[places[t]]
        for s in range(t + 1):
            b = latents[places[s]]
            total = gram[a, b] if gram.shape[0] > 0 else np.float32(np.dot(D[a], D[b]))
            for u in range(s):
                total -= L[t, u] * L[s, u]
            L[t, s] = np.sqrt(max(total, np.float32(_PIVOT))) if s == t else total / L[s, s]
        total = np.float32(np.dot(D[a], x))
        for u in range(t):
            total -= L[t, u] * y[u]
        y[t] = total / L[t, t]
    for t in range(used):
        out[t] = 0
    for t in range(kept - 1, -1, -1):
        total = y[t]
        for s in range(t + 1, kept):
            total -= L[s, t] * out[s]
        out[t] = total / L[t, t]
    for t in range(kept):
        out[t] = max(out[t], np.float32(0))
    return kept
