"""Weighted sums of coded elements: composed in code space, multiplied by the codebook once, or not at all.

An element's feature is f_i = sum_k value[i, k] C[index[i, k]], a pixel's F = sum_i weight_i f_i = W C with
W = sum_i weight_i code_i [L] (LangSplatV2, arXiv 2507.07136). Pixels are any sums: of splats, tokens, neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.sparse.threads import spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TILE = 16
"""Pixels a side of a tile, whose splats are sorted once."""
OPAQUE, FAINT, SPENT = 0.99, 1 / 255, 1e-4
"""Largest opacity of one splat; least that is drawn; light left at which a pixel is done (Kerbl et al. 2023)."""


class Blend(NamedTuple):
    """What each pixel is a sum of: elements and weights, those of pixel p at indptr[p]..indptr[p + 1]."""

    indptr: NDArray[np.int64]
    elements: Ints
    weights: Floats


class Splats(NamedTuple):
    """Gaussians in the plane: means [n, 2] (x, y) in pixels, conics [n, 3] (a, b, c of a x^2 + 2 b x y + c y^2),
    opacity [n], depth [n] (the nearest first)."""

    means: Floats
    conics: Floats
    opacity: Floats
    depth: Floats


def composite(blend: Blend, index: Ints, value: Floats, latents: int, threads: int = 1) -> Floats:
    """W [P, L]: for each pixel the sum of its elements' codes. index, value [n, K]; K operations an element."""
    out = np.zeros((len(blend.indptr) - 1, latents), np.float32)
    spread(
        lambda a, b: _composite(blend.indptr, blend.elements, blend.weights, index, value, a, b, out),
        len(out),
        threads,
    )
    return out


def composite_reference(blend: Blend, index: Ints, value: Floats, latents: int) -> Floats:
    """The specification of `composite`."""
    codes = np.zeros((len(index), latents), np.float32)
    np.add.at(codes, (np.arange(len(index))[:, None], index), value)
    out = np.zeros((len(blend.indptr) - 1, latents), np.float32)
    for p in range(len(out)):
        a, b = blend.indptr[p], blend.indptr[p + 1]
        out[p] = blend.weights[a:b] @ codes[blend.elements[a:b]]
    return out


def relevance(W: Floats, gram: Floats, products: Floats) -> Floats:
    """Cosine of F = W C with queries, without F: (W C q) / sqrt(W (C C^T) W^T), [P, n].

    gram: C C^T [L, L]. products: C q [L, n] of queries of length 1. L^2 operations a pixel rather than L D.
    """
    both = W @ np.concatenate([gram, products], 1)
    lengths = np.einsum("pl,pl->p", both[:, : len(gram)], W)
    return both[:, len(gram) :] / np.sqrt(np.maximum(lengths, 1e-20))[:, None]


def relevance_reference(W: Floats, C: Floats, queries: Floats) -> Floats:
    """The specification of `relevance`: the map in D dimensions, then the cosine."""
    F = W @ C
    lengths = np.linalg.norm(F, axis=1, keepdims=True) * np.linalg.norm(queries, axis=1)
    return F @ queries.T / np.maximum(lengths, 1e-10)


def rasterise(splats: Splats, height: int, width: int) -> Blend:
    """Which splats each pixel sees, front to back, with weights alpha_i prod_(j < i) (1 - alpha_j).

    alpha = min(0.99, opacity exp(-q / 2)), q the conic's form at the pixel's middle; below 1/255 not drawn; a pixel is
    done when less than 1e-4 of its light is left. Tiles of 16 pixels a side.
    """
    order = np.argsort(splats.depth, kind="stable").astype(np.int32)
    a, b, c = splats.conics.T.astype(np.float64)
    determinant = np.maximum(a * c - b * b, 1e-12)
    level = 2 * np.log(np.maximum(splats.opacity * 255, 1.0))  # q beyond which alpha is below 1/255
    reach = np.sqrt(np.stack([c, a], 1) / determinant[:, None] * level[:, None]).astype(np.float32)
    indptr, elements, weights = [np.zeros(1, np.int64)], [], []
    rows = {}
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            low = np.array([left, top], np.float32)
            high = np.minimum(low + TILE, [width, height]).astype(np.float32)
            near = (splats.means + reach > low).all(1) & (splats.means - reach < high).all(1)
            chosen = order[near[order]]
            rows[top, left] = _tile(
                splats.means, splats.conics, splats.opacity, chosen, top, left, int(high[1]), int(high[0])
            )
    for y in range(height):
        for left in range(0, width, TILE):
            counts, covered, weight = rows[y - y % TILE, left]
            line = y % TILE
            span = counts.shape[1]
            starts = np.concatenate([[0], np.cumsum(counts.reshape(-1))])
            first, last = starts[line * span], starts[(line + 1) * span]
            indptr.append(counts[line])
            elements.append(covered[first:last])
            weights.append(weight[first:last])
    return Blend(np.cumsum(np.concatenate(indptr)), np.concatenate(elements), np.concatenate(weights))


@numba.njit(cache=True, nogil=True)
def _composite(
    indptr: NDArray[np.int64], elements: Ints, weights: Floats, index: Ints, value: Floats, start: int, stop: int,
    out: Floats,
) -> None:  # fmt: skip
    for p in range(start, stop):
        for q in range(indptr[p], indptr[p + 1]):
            i, weight = elements[q], weights[q]
            for k in range(index.shape[1]):
                out[p, index[i, k]] += weight * value[i, k]


@numba.njit(cache=True, nogil=True)
def _tile(
    means: Floats, conics: Floats, opacity: Floats, chosen: Ints, top: int, left: int, bottom: int, right: int
) -> tuple[NDArray[np.int64], Ints, Floats]:
    counts = np.zeros((bottom - top, right - left), np.int64)
    room = max(64, 16 * (bottom - top) * (right - left))
    elements, weights, used = np.empty(room, np.int32), np.empty(room, np.float32), 0
    for y in range(top, bottom):
        for x in range(left, right):
            light = np.float32(1)
            for i in chosen:
                dx, dy = np.float32(x + 0.5) - means[i, 0], np.float32(y + 0.5) - means[i, 1]
                q = conics[i, 0] * dx * dx + 2 * conics[i, 1] * dx * dy + conics[i, 2] * dy * dy
                alpha = min(np.float32(OPAQUE), opacity[i] * np.exp(np.float32(-0.5) * q))
                if q < 0 or alpha < FAINT:
                    continue
                if used == len(elements):
                    elements = np.concatenate((elements, np.empty(len(elements), np.int32)))
                    weights = np.concatenate((weights, np.empty(len(weights), np.float32)))
                elements[used], weights[used] = i, alpha * light
                used += 1
                counts[y - top, x - left] += 1
                light *= 1 - alpha
                if light < SPENT:
                    break
    return counts, elements[:used].copy(), weights[:used].copy()
