"""Random stacked weights in memory."""

from __future__ import annotations

import numpy as np

from bntools.kernels.stack import compact_levels as compacted
from bntools.kernels.stack import plane_trellis
from bntools.kernels.stack import weight as stack_weight


def draw(rows: int, cols: int, largest: int, seed: int = 0) -> np.ndarray:
    """Levels [cols, rows], small but for some columns."""
    rng = np.random.default_rng(seed)
    size = np.where(rng.random((cols, 1)) < 0.1, largest, min(largest, 7))
    found = rng.integers(-size, size + 1, (cols, rows)).astype(np.int16)
    found[-1, -1] = -largest
    return found


def sample(
    rows: int, cols: int, largest: int, planes: int, plain: bool, seed: int = 0, trellis: int = 0
) -> stack_weight.Stacked:
    rng = np.random.default_rng(seed)
    scales = stack_weight.Scales(
        rng.random(rows).astype(np.float32), rng.random(cols).astype(np.float32),
        rng.integers(-9, 70, rows).astype(np.int16), rng.integers(-9, 9, cols).astype(np.int16),
        np.ones(64, np.float32) if plain else rng.random(64).astype(np.float32),
    )  # fmt: skip
    bits = rng.integers(0, 256, (plane_trellis.lines(planes, trellis) * rows, -(-cols // 8)), np.uint8)
    first, depth = rng.permutation(rows).astype(np.int32), rng.integers(0, planes + 1, rows).astype(np.uint8)
    levels = compacted.compact(draw(rows, cols, largest, seed))
    return stack_weight.Stacked(levels, scales, bits, first, rows, depth, trellis)
