"""Links between a metric and the line on which the laws are linear: no prediction leaves the metric's range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

KINDS = ("error", "accuracy", "loss", "score")
"""Metrics by range: error and accuracy in 0 to 1, loss and score above 0. The laws see 1 - accuracy."""


def forward(kind: str, value: Floats, floor: Floats | float = 0.0) -> Floats:
    """z of a metric above its floor c: ln((e - c) / (1 - e)) of an error e, ln(L - c) of a loss or score."""
    z = np.log(value - floor)
    return z - np.log1p(-value) if kind in ("error", "accuracy") else z


def backward(kind: str, z: Floats, floor: Floats | float = 0.0) -> Floats:
    """The metric at z: between c and 1 for an error, above c for a loss or score."""
    if kind in ("error", "accuracy"):
        odds = np.exp(-np.abs(z))  # no overflow on either side
        share = np.where(z >= 0, 1.0, odds) / (1 + odds)
        return share + floor * (1 - share)
    return floor + np.exp(np.minimum(z, 700.0))


def slope(kind: str, value: Floats, floor: Floats | float = 0.0) -> Floats:
    """dz / dvalue, above 0."""
    inner = 1 / (value - floor)
    return inner + 1 / (1 - value) if kind in ("error", "accuracy") else inner
