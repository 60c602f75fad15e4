"""Plug-in entropy and information of discrete codes, and the bins that make codes of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def codes(points: NDArray, bins: int, limits: str | tuple[float, float] = "auto") -> Indices:
    """One number for each distinct binned row of points [N, D].

    limits: (low, high) with what lies beyond put into the end bins, `auto` for the least and greatest of all values,
    `quantile` for bins of equal counts a column.
    """
    if limits == "quantile":
        levels = np.linspace(0, 1, bins + 1)[1:-1]
        columns = [np.searchsorted(np.quantile(column, levels), column, side="right") for column in points.T]
        binned = np.stack(columns, 1)
    else:
        low, high = (float(points.min()), float(points.max())) if isinstance(limits, str) else limits
        scaled = (points - low) * (bins / (high - low)) if high > low else np.zeros(points.shape)
        binned = np.clip(np.floor(scaled), 0, bins - 1)
    return row_codes(binned.astype(np.int32))


def row_codes(rows: NDArray) -> Indices:
    """The number of each row among the distinct ones."""
    rows = np.ascontiguousarray(rows.reshape(len(rows), -1))
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def entropy(counts: Indices, corrected: bool = True) -> float:
    """Plug-in entropy of counts in nats; corrected: plus (K - 1) / (2 N) (Miller and Madow 1955)."""
    counts = counts[counts > 0]
    total = counts.sum()
    shares = counts / total
    plain = -(shares * np.log(shares)).sum()
    return float(plain + (len(counts) - 1) / (2 * total) if corrected else plain)


def discrete_information(x: Indices, y: Indices, corrected: bool = True) -> float:
    """H(x) + H(y) - H(x, y) of codes [N]."""
    joint = row_codes(np.stack([x, y], 1))
    parts = [entropy(np.bincount(part), corrected) for part in (x, y, joint)]
    return parts[0] + parts[1] - parts[2]
