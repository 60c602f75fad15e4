"""Maps of queries and vectors under which few coordinates, or few bits, keep the products between them.

K_Q = Q^T Q / m and K_X = X^T X / n are second moments, not centred. A query becomes q A, a vector x B, both [D, d].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

STEPS = 500
"""Frank-Wolfe steps at most (LeanVec, arXiv 2312.16335, section 3.1)."""
_GAP = 1e-5  # of the loss at the start: below it further steps change no recall


class Gauge(NamedTuple):
    """Maps A of queries and B of vectors, [D, d]."""

    queries: Matrix
    base: Matrix


def second_moments(x: NDArray[np.float32]) -> Matrix:
    """X^T X / n in float64 [D, D], of rows x [n, D], tile by tile."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), 8192):
        part = x[start : start + 8192]
        total += (part.T @ part).astype(np.float64)
    return total / max(len(x), 1)


def principal(base: Matrix, dims: int) -> Gauge:
    """LeanVec-ID: the first `dims` eigenvectors of the vectors' second moments, for both."""
    axes = np.linalg.eigh(base)[1][:, ::-1][:, :dims]
    return Gauge(axes, axes)


def sphere(queries: Matrix, base: Matrix, dims: int, shrink: float) -> Gauge:
    """Axes in which queries are white: the loss is then the error of the vectors, and least for the largest axes.

    S = K_Q^(1/2) with K_Q shrunk towards the isotropic matrix, W eigenvectors of S K_X S; A = S^-1 W, B = S W
    (GleanVec, arXiv 2410.22347, section 3).
    """
    width = len(queries)
    mixed = (1 - shrink) * queries + shrink * np.trace(queries) / width * np.eye(width)
    values, vectors = np.linalg.eigh(mixed)
    root = np.sqrt(np.maximum(values, values[-1] * 1e-12))
    half, inverse = vectors * root @ vectors.T, vectors / root @ vectors.T
    axes = np.linalg.eigh(half @ base @ half)[1][:, ::-1][:, :dims]
    scale = np.sqrt(np.trace(queries) / width)  # keeps coordinates near the size they had
    return Gauge(inverse @ axes * scale, half @ axes / scale)


def loss(gauge: Gauge, queries: Matrix, base: Matrix) -> float:
    """Share of the squared products that the maps lose: |Q (A B^T - I) X^T|^2 / |Q X^T|^2."""
    error = gauge.queries @ gauge.base.T - np.eye(len(queries))
    return float(np.sum((error.T @ queries @ error) * base) / np.sum(queries * base))


def eigen_search(queries: Matrix, base: Matrix, dims: int) -> Gauge:
    """LeanVec-OOD by eigenvectors: of beta K_Q + (1 - beta) K_X, scaled to trace 1, the beta with the least loss.

    33 values of beta, then golden sections between the neighbours of the best (Algorithm 2 of the paper, which leaves
    the search to a derivative-free method).
    """
    q, x = queries / np.trace(queries), base / np.trace(base)

    def at(beta: float) -> tuple[float, Gauge]:
        gauge = principal(beta * q + (1 - beta) * x, dims)
        return loss(gauge, q, x), gauge

    grid = np.linspace(0, 1, 33)
    tried = [at(b) for b in grid]
    place = int(np.argmin([t[0] for t in tried]))
    low, high = grid[max(place - 1, 0)], grid[min(place + 1, 32)]
    best, ratio = tried[place], (np.sqrt(5) - 1) / 2
    for _ in range(8):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        one, two = at(left), at(right)
        low, high = (low, right) if one[0] <= two[0] else (left, high)
        best = min(best, one, two, key=lambda t: t[0])
    return best[1]


def frank_wolfe(queries: Matrix, base: Matrix, dims: int, *, paper: bool = False) -> Gauge:
    """LeanVec-OOD by Frank-Wolfe over the convex hull of orthonormal frames, A and B by turns.

    Starts at the eigen-search, takes the exact step (the loss is quadratic along it), stops when the gap
    <grad, A - S> is below 1e-5 of the first loss. paper: starts at the principal axes, steps of (t + 1)^-0.999, stops
    when the loss changes by under a thousandth, as the authors' program does.
    """
    q, x = queries / np.trace(queries), base / np.trace(base)
    a, b = principal(x, dims) if paper else eigen_search(q, x, dims)
    whole = float(np.sum(q * x))
    before = loss(Gauge(a, b), q, x)
    for step in range(STEPS):
        fixed = (step + 1.0) ** -0.999 if paper else None
        a, gap_a = _descend(a, b, q, x, fixed)
        b, gap_b = _descend(b, a, x, q, fixed)
        if paper:
            now = loss(Gauge(a, b), q, x)
            if abs(before - now) <= 1e-3 * before:
                break
            before = now
        elif gap_a + gap_b <= _GAP * whole:
            break
    return Gauge(a, b)


def gradient(a: Matrix, b: Matrix, queries: Matrix, base: Matrix) -> Matrix:
    """Derivative by A of |Q (A B^T - I) X^T|^2: 2 K_Q A (B^T K_X B) - 2 K_Q K_X B."""
    return 2 * queries @ (a @ (b.T @ base @ b) - base @ b)


def _descend(
    a: Matrix, b: Matrix, queries: Matrix, base: Matrix, fixed: float | None
) -> tuple[Matrix, float]:
    """One Frank-Wolfe step in A, and the gap before it."""
    slope = gradient(a, b, queries, base)
    u, _, v = np.linalg.svd(-slope, full_matrices=False)
    direction = u @ v - a
    gap = -float(np.sum(slope * direction))
    if fixed is None:
        curve = float(np.sum((queries @ direction) * (direction @ (b.T @ base @ b))))
        fixed = min(gap / (2 * curve), 1.0) if curve > 0 else 1.0
    return a + fixed * direction, gap


def query_shift(queries: Matrix, base: Matrix) -> float:
    """1 - tr(K_Q K_X) / (|K_Q| |K_X|): 0 where queries vary as vectors do, near 1 where principal axes are unsafe."""
    return float(1 - np.sum(queries * base) / (np.linalg.norm(queries) * np.linalg.norm(base)))
