"""Images of one white shape on black in every combination of five known factors, rendered here, as in dSprites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE, FINER = 32, 4
"""Pixels of a side, and points a pixel is sampled at, each way."""
FACTORS = {"shape": 3, "scale": 6, "orientation": 10, "x": 10, "y": 10}
SMALLEST = 0.5
"""Smallest size, as a share of the largest."""
_FIRST, _STEP = 7, 2
"""Pixel of the middle at the first place, and pixels from a place to the next."""
_RADIUS, _HEART = 5.2, 1.25


def render() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [18000, 32, 32] of grey levels and the levels of their factors [18000, 5], the last factor fastest."""
    counts = tuple(FACTORS.values())
    images = np.zeros((*counts, SIDE, SIDE), np.uint8)
    for shape, scale, turn in np.ndindex(*counts[:3]):
        sprite = _sprite(shape, scale, turn)
        for x, y in np.ndindex(*counts[3:]):
            left, top = _STEP * x, _STEP * y
            images[shape, scale, turn, x, y, top : top + 2 * _FIRST, left : left + 2 * _FIRST] = sprite
    levels = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, len(counts))
    return images.reshape(-1, SIDE, SIDE), levels.astype(np.int64)


def write(folder: Path) -> None:
    """sprites.safetensors: x [N, 32, 32] U8 and factors [N, 5]."""
    import torch

    from bntools.core.artifact.writer import Writer

    images, levels = render()
    with Writer(str(folder / "sprites.safetensors"), "tensors", force=True) as out:
        out.describe("factors", FACTORS)
        out.add("x", torch.from_numpy(images))
        out.add("factors", torch.from_numpy(levels))


def _sprite(shape: int, scale: int, turn: int) -> NDArray[np.uint8]:
    """One shape [14, 14] about the middle: of each pixel the share that it covers."""
    points = (np.arange(2 * _FIRST * FINER) + 0.5) / FINER - _FIRST
    size = _RADIUS * (SMALLEST + (1 - SMALLEST) * scale / (FACTORS["scale"] - 1))
    angle = 2 * np.pi * turn / FACTORS["orientation"]
    u = (np.cos(angle) * points[None, :] + np.sin(angle) * points[:, None]) / size
    v = (np.cos(angle) * points[:, None] - np.sin(angle) * points[None, :]) / size
    inside = (_square, _ellipse, _heart)[shape](u, v)
    covered = inside.reshape(2 * _FIRST, FINER, 2 * _FIRST, FINER).mean((1, 3))
    return np.round(255 * covered).astype(np.uint8)


def _square(u: Any, v: Any) -> Any:
    return np.maximum(np.abs(u), np.abs(v)) <= 0.8


def _ellipse(u: Any, v: Any) -> Any:
    return u**2 + (1.8 * v) ** 2 <= 1


def _heart(u: Any, v: Any) -> Any:
    u, v = _HEART * u, _HEART * -v
    return (u**2 + v**2 - 1) ** 3 - u**2 * v**3 <= 0
