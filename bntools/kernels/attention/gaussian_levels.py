"""Lloyd-Max levels: the quantiser of a few levels with the least squared error, of samples or of a Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def lloyd_max(samples: NDArray[np.floating], bits: int, rounds: int = 60) -> tuple[Floats, float]:
    """Symmetric levels [2^bits], ascending, and their mean squared error; samples [n] of a symmetric law."""
    folded = np.sort(np.abs(np.asarray(samples, np.float64)).reshape(-1))
    if bits == 0:
        return np.zeros(1, np.float32), float(np.mean(folded**2))
    count = 1 << (bits - 1)
    sums = np.concatenate([[0.0], np.cumsum(folded)])
    levels = np.quantile(folded, (np.arange(count) + 0.5) / count)
    wide = np.linspace(0, folded[-1], 2 * count + 1)[1::2]
    levels = 0.8 * levels + 0.2 * wide
    for _ in range(rounds):
        edges = np.searchsorted(folded, (levels[1:] + levels[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [len(folded)]])
        number = np.diff(bounds)
        levels = np.where(number > 0, np.diff(sums[bounds]) / np.maximum(number, 1), levels)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, folded)]
    error = float(np.mean((folded - nearest) ** 2))
    return np.concatenate([-levels[::-1], levels]).astype(np.float32), error


def gaussian(bits: int) -> tuple[Floats, float]:
    """Levels for a Gaussian of variance 1, from its quantiles."""
    p = (np.arange(200_000) + 0.5) / 200_000
    return lloyd_max(_normal_quantile(p), bits, 200)


def _normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """By Newton's method on the error function, which numpy lacks: torch has its inverse."""
    import torch

    return (torch.erfinv(torch.from_numpy(2 * p - 1)) * 2**0.5).numpy()
