"""The inner loops of sparse dictionaries: compiled, without the interpreter's lock, rows or latents start..stop.
A support lists pairs of a row and a latent, row by row: those of row r stand at indptr[r]..indptr[r + 1].
X [B, d] rows, D [m, d] decoder, E [m, d] encoder, all float32.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_SUMS = {"reassoc", "contract", "nsz"}


@numba.njit(cache=True, nogil=True)
def thresholds(
    keys: NDArray[np.int16], k: int, slack: int, start: int, stop: int, out: NDArray[np.int16]
) -> None:
    """Of each row the k-th largest key less `slack`, but at least 1: keys [B, m], those of 0 and less do not count.

    By bisection, the last row's threshold tried first: a count over a row compares 32 keys an instruction.
    """
    m = keys.shape[1]
    guess = np.int16(16384)
    for r in range(start, stop):
        low, high = 0, 32767  # at least k keys are >= low (or low is 0), fewer than k are >= high
        middle, width = np.int16(guess), 64
        while high - low > 1:
            count = np.int32(0)
            for j in range(m):
                count += np.int32(keys[r, j] >= middle)
            if count >= k:
                low = np.int32(middle)
                following = low + width
            else:
                high = np.int32(middle)
                following = high - width
            width *= 2
            if not low < following < high or width > 512:
                following = (low + high) // 2
            middle = np.int16(following)
        guess = np.int16(min(max(low, 1), 32766))
        out[r] = np.int16(max(low - slack, 1))


@numba.njit(cache=True, nogil=True)
def above(
    keys: NDArray[np.int16],
    limits: NDArray[np.int16],
    room: int,
    start: int,
    stop: int,
    latents: Ints,
    counts: Ints,
) -> None:
    """Latents whose key reaches the row's limit, ascending, at most `room` a row: latents [B, room], counts [B]."""
    for r in range(start, stop):
        count, limit = 0, limits[r]
        for j in range(keys.shape[1]):
            if keys[r, j] >= limit:
                if count == room:
                    break
                latents[r, count] = j
                count += 1
        counts[r] = count


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def dots(
    X: Floats, E: Floats, bias: Floats, latents: Ints, counts: Ints, start: int, stop: int, out: Floats
) -> None:
    """out[r, i] = X[r] . E[j] + bias[j] for the latents [B, room] of each row."""
    d = X.shape[1]
    for r in range(start, stop):
        for i in range(counts[r]):
            j = latents[r, i]
            total = np.float32(0)
            for c in range(d):
                total += X[r, c] * E[j, c]
            out[r, i] = total + bias[j]


@numba.njit(cache=True, nogil=True)
def largest(
    latents: Ints, values: Floats, counts: Ints, k: int, start: int, stop: int, out: Ints, kept: Floats
) -> None:
    """The k largest values of each row, descending, ties to the lower latent; 0 where they are 0 or fewer."""
    for r in range(start, stop):
        used = 0
        for i in range(counts[r]):
            value, latent = values[r, i], latents[r, i]
            if value <= 0 or (used == k and value <= kept[r, k - 1]):
                continue
            place = used if used < k else k - 1
            while place > 0 and kept[r, place - 1] < value:
                kept[r, place], out[r, place] = kept[r, place - 1], out[r, place - 1]
                place -= 1
            kept[r, place], out[r, place] = value, latent
            used = min(used + 1, k)
        for i in range(used, k):
            kept[r, i], out[r, i] = 0, 0


@numba.njit(cache=True, nogil=True, fastmath=_SUMS, inline="always")
def _add_rows(D: Floats, latents: Ints, values: Floats, low: int, high: int, out: Floats) -> None:
    """out += sum of values * D over those latents that lie in low..high, four at a time."""
    d, count, q = len(out), len(latents), 0
    held, weight = np.empty(4, np.int32), np.empty(4, np.float32)
    for p in range(count):
        if low <= latents[p] < high:
            held[q], weight[q] = latents[p], values[p]
            q += 1
            if q == 4:
                a, b, e, f = D[held[0]], D[held[1]], D[held[2]], D[held[3]]
                u, v, w, x = weight[0], weight[1], weight[2], weight[3]
                for c in range(d):
                    out[c] += u * a[c] + v * b[c] + w * e[c] + x * f[c]
                q = 0
    for p in range(q):
        a, u = D[held[p]], weight[p]
        for c in range(d):
            out[c] += u * a[c]


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def residuals(
    X: Floats, D: Floats, bias: Floats, indptr: NDArray[np.int64], latents: Ints, values: Floats, ends: Ints,
    scale: float, start: int, stop: int, G: Floats, pulls: Floats, errors: NDArray[np.float64],
) -> None:  # fmt: skip
    """Decode, and the gradient of scale * sum over levels of |xhat_l - x|^2 by the codes.

    xhat_l = bias + sum of values * D over the latents below ends[l]. G[l] [B, d]: the gradient by xhat summed over
    levels l and above, which is what a latent of level l sees. pulls: G[level] . D of each pair. errors [L, B].
    """
    d, levels = X.shape[1], len(ends)
    total = np.empty(d, np.float32)
    for r in range(start, stop):
        for c in range(d):
            total[c] = bias[c] - X[r, c]
        first = 0
        for level in range(levels):
            a, b = indptr[r], indptr[r + 1]
            _add_rows(D, latents[a:b], values[a:b], first, ends[level], total)
            first = ends[level]
            square = np.float32(0)
            for c in range(d):
                G[level, r, c] = np.float32(2 * scale) * total[c]
                square += total[c] * total[c]
            errors[level, r] = square
        for level in range(levels - 2, -1, -1):
            for c in range(d):
                G[level, r, c] += G[level + 1, r, c]
        for p in range(indptr[r], indptr[r + 1]):
            j, level = latents[p], 0
            while j >= ends[level]:
                level += 1
            pull = np.float32(0)
            for c in range(d):
                pull += G[level, r, c] * D[j, c]
            pulls[p] = pull


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def decode(
    D: Floats, bias: Floats, indptr: NDArray[np.int64], latents: Ints, values: Floats, start: int, stop: int,
    out: Floats,
) -> None:  # fmt: skip
    """out[r] = bias + sum of values * D over the row's latents."""
    d = D.shape[1]
    for r in range(start, stop):
        for c in range(d):
            out[r, c] = bias[c]
        a, b = indptr[r], indptr[r + 1]
        _add_rows(D, latents[a:b], values[a:b], 0, len(D), out[r])


@numba.njit(cache=True, nogil=True)
def by_latent(latents: Ints, starts: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """Stable counting sort of pairs: those of latent j stand at order[starts[j]..starts[j + 1]]. starts: [m + 1]."""
    m = len(starts) - 1
    for j in range(m + 1):
        starts[j] = 0
    for p in range(len(latents)):
        starts[latents[p] + 1] += 1
    for j in range(m):
        starts[j + 1] += starts[j]
    for p in range(len(latents)):
        j = latents[p]
        order[starts[j]] = p
        starts[j] += 1
    for j in range(m, 0, -1):
        starts[j] = starts[j - 1]
    starts[0] = 0


@numba.njit(cache=True, nogil=True, fastmath=_SUMS, inline="always")
def _accumulate(
    X: Floats, G: Floats, rows: Ints, levels: NDArray[np.uint8], values: Floats, slopes: Floats,
    order: NDArray[np.int64], by_D: Floats, by_E: Floats,
) -> None:  # fmt: skip
    """Sums over the pairs of one latent, four pairs at a time: a quarter of the traffic of one at a time."""
    d = X.shape[1]
    for c in range(d):
        by_D[c], by_E[c] = 0, 0
    q, count = 0, len(order)
    while q + 4 <= count:
        p0, p1, p2, p3 = order[q], order[q + 1], order[q + 2], order[q + 3]
        x0, x1, x2, x3 = X[rows[p0]], X[rows[p1]], X[rows[p2]], X[rows[p3]]
        g0, g1 = G[levels[p0], rows[p0]], G[levels[p1], rows[p1]]
        g2, g3 = G[levels[p2], rows[p2]], G[levels[p3], rows[p3]]
        v0, v1, v2, v3 = values[p0], values[p1], values[p2], values[p3]
        s0, s1, s2, s3 = slopes[p0], slopes[p1], slopes[p2], slopes[p3]
        for c in range(d):
            by_D[c] += v0 * g0[c] + v1 * g1[c] + v2 * g2[c] + v3 * g3[c]
            by_E[c] += s0 * x0[c] + s1 * x1[c] + s2 * x2[c] + s3 * x3[c]
        q += 4
    while q < count:
        p = order[q]
        x, g, v, t = X[rows[p]], G[levels[p], rows[p]], values[p], slopes[p]
        for c in range(d):
            by_D[c] += v * g[c]
            by_E[c] += t * x[c]
        q += 1


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def gradients(
    X: Floats, G: Floats, rows: Ints, levels: NDArray[np.uint8], values: Floats, slopes: Floats,
    starts: NDArray[np.int64], order: NDArray[np.int64], start: int, stop: int, by_D: Floats, by_E: Floats,
) -> None:  # fmt: skip
    """by_D[j] = sum of values * G[level, row], by_E[j] = sum of slopes * X[row], over the pairs of latent j."""
    for j in range(start, stop):
        _accumulate(X, G, rows, levels, values, slopes, order[starts[j] : starts[j + 1]], by_D[j], by_E[j])


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def descend(
    X: Floats, G: Floats, rows: Ints, levels: NDArray[np.uint8], values: Floats, slopes: Floats,
    starts: NDArray[np.int64], order: NDArray[np.int64], place: Ints, more_D: Floats, more_E: Floats, rate: float,
    moments: tuple[float, float, float, float],
    start: int, stop: int, D: Floats, E: Floats, D1: Floats, D2: Floats, E1: Floats, E2: Floats,
) -> None:  # fmt: skip
    """`gradients` of latents start..stop and Adam's step at once: D[j] stays on the unit sphere, no gradient is stored.

    place [m]: the row of more_D and more_E that is added to a latent's gradients, or -1. moments: decay
    of the first and second moment, and their corrections 1 - decay^step. D1, D2, E1, E2: the moments themselves.
    """
    d = X.shape[1]
    by_D, by_E = np.empty(d, np.float32), np.empty(d, np.float32)
    b1, b2 = np.float32(moments[0]), np.float32(moments[1])
    a1, a2 = np.float32(1 - moments[0]), np.float32(1 - moments[1])
    step, root = np.float32(rate / moments[2]), np.float32(1 / np.sqrt(moments[3]))
    tiny = np.float32(1e-8)
    for j in range(start, stop):
        _accumulate(X, G, rows, levels, values, slopes, order[starts[j] : starts[j + 1]], by_D, by_E)
        if place[j] >= 0:
            for c in range(d):
                by_D[c] += more_D[place[j], c]
                by_E[c] += more_E[place[j], c]
        along = np.float32(0)
        for c in range(d):
            along += by_D[c] * D[j, c]
        square = np.float32(0)
        for c in range(d):
            g = by_D[c] - along * D[j, c]
            D1[j, c] = b1 * D1[j, c] + a1 * g
            D2[j, c] = b2 * D2[j, c] + a2 * g * g
            D[j, c] -= step * D1[j, c] / (np.sqrt(D2[j, c]) * root + tiny)
            square += D[j, c] * D[j, c]
            e = by_E[c]
            E1[j, c] = b1 * E1[j, c] + a1 * e
            E2[j, c] = b2 * E2[j, c] + a2 * e * e
            E[j, c] -= step * E1[j, c] / (np.sqrt(E2[j, c]) * root + tiny)
        length = np.float32(1) / np.sqrt(max(square, np.float32(1e-30)))
        for c in range(d):
            D[j, c] *= length


@numba.njit(cache=True, nogil=True)
def reach(
    keys: NDArray[np.int16],
    limits: NDArray[np.int16],
    room: int,
    start: int,
    stop: int,
    latents: Ints,
    counts: Ints,
) -> None:
    """`above` with a limit for each latent [m] instead of each row."""
    for r in range(start, stop):
        count = 0
        for j in range(keys.shape[1]):
            if keys[r, j] >= limits[j]:
                if count == room:
                    break
                latents[r, count] = j
                count += 1
        counts[r] = count
