"""The penalties, their proximal steps, and what the concave part of each adds to a gradient.

lasso: lam |b|. SCAD (Fan and Li 2001), shape a > 2: lam |b| up to lam, (2 a lam |b| - b^2 - lam^2) / (2 (a - 1)) up to
a lam, lam^2 (a + 1) / 2 beyond. MCP (Zhang 2010), shape g > 1: lam |b| - b^2 / (2 g) up to g lam, g lam^2 / 2 beyond.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

LASSO, SCAD, MCP = 0, 1, 2
NAMES = {"lasso": LASSO, "scad": SCAD, "mcp": MCP}
SHAPES = {"lasso": 1.0, "scad": 3.7, "mcp": 3.0}
"""Defaults: 3.7 by Fan and Li's Bayes risk; 3 as in ncvreg, where 2 is the thesis'."""


@numba.njit(cache=True, nogil=True)
def value(b: float, lam: float, shape: float, kind: int) -> float:
    """The penalty of one coefficient."""
    b = abs(b)
    if kind == 2:
        return lam * b - b * b / (2 * shape) if b <= shape * lam else shape * lam * lam / 2
    if kind == 1 and b > lam:
        if b <= shape * lam:
            return (2 * shape * lam * b - b * b - lam * lam) / (2 * (shape - 1))
        return lam * lam * (shape + 1) / 2
    return lam * b


@numba.njit(cache=True, nogil=True)
def soft(z: float, lam: float) -> float:
    """Soft threshold."""
    if z > lam:
        return z - lam
    return z + lam if z < -lam else 0.0


@numba.njit(cache=True, nogil=True)
def prox(z: float, lam: float, shape: float, kind: int) -> float:
    """argmin_b (b - z)^2 / 2 + penalty(b)."""
    size = abs(z)
    if kind == 2 and size <= shape * lam:
        return soft(z, lam) / (1 - 1 / shape)
    if kind == 1 and 2 * lam < size <= shape * lam:
        return soft(z, shape * lam / (shape - 1)) / (1 - 1 / (shape - 1))
    if kind == 0 or (kind == 1 and size <= 2 * lam):
        return soft(z, lam)
    return z


@numba.njit(cache=True, nogil=True)
def curved_prox(z: float, v: float, lam: float, shape: float, kind: int) -> float:
    """argmin_b v (b - z)^2 / 2 + penalty(b) for a curvature v > 0 that may be below the penalty's own."""
    size = abs(z)
    ends = (lam, shape * lam)
    points = (0.0, soft(size, lam / v), 0.0, size)
    best, least = 0.0, np.inf
    for i in range(4):
        b = points[i]
        if i == 1 and kind == 1:
            b = min(b, ends[0])
        if i == 1 and kind == 2 and v * shape > 1:
            b = min(max(0.0, (v * size - lam) / (v - 1 / shape)), ends[1])
        if i == 2 and kind == 1 and v * (shape - 1) > 1:
            b = (v * size - shape * lam / (shape - 1)) / (v - 1 / (shape - 1))
            b = min(max(b, ends[0]), ends[1])
        cost = v * (b - size) ** 2 / 2 + value(b, lam, shape, kind)
        if cost < least:
            best, least = b, cost
    return best if z >= 0 else -best


def concave_gradient(b: Any, lam: float, shape: float, kind: int) -> Any:
    """Gradient of penalty(b) - lam |b|, elementwise: continuous, so it belongs to the smooth part."""
    size = np.abs(b)
    if kind == MCP:
        return np.where(size <= shape * lam, -b / shape, -lam * np.sign(b))
    if kind == SCAD:
        middle = (shape * lam - size) / (shape - 1) - lam
        return np.sign(b) * np.where(size <= lam, 0.0, np.where(size <= shape * lam, middle, -lam))
    return np.zeros_like(b)
