"""A side of a pair before anything is estimated: finite, varying, discrete or not, heavy-tailed or on a manifold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.kernels.information.box_tree import build, kth_distances
from bntools.kernels.information.histogram import row_codes

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FEWEST = 50
_MOST_LABELS = 64
_HEAVY = 10.0
"""Excess kurtosis from which a column counts as heavy-tailed; a t of 5 degrees of freedom has 6."""


class Variable(NamedTuple):
    """points [N, D] of the columns that vary, float64; codes [N] of its distinct rows where it is discrete."""

    points: Floats
    codes: Indices | None
    repeated: float
    flags: tuple[str, ...]

    def at(self, rows: NDArray[Any]) -> Variable:
        codes = None if self.codes is None else self.codes[rows]
        return self._replace(points=self.points[rows], codes=codes)


def look_at(values: NDArray[Any], what: str, labels: bool | None = None) -> Variable:
    """The variable that an array [N] or [N, D] holds.

    labels: whether it is classes; None: it is where it has one column, of whole numbers, with at most 64 values of 5
    rows each on the average. Raises BnError (exit 3) for NaN or infinity, fewer than 50 rows, labels that are no whole
    numbers.
    """
    if values.ndim == 0 or values.dtype.kind not in "fiub":
        raise bad_input(f"{what} holds {values.dtype}, not numbers")
    points = np.asarray(values.reshape(len(values), -1), np.float64)
    if len(points) < FEWEST:
        raise bad_input(f"{what} has {len(points)} rows, at least {FEWEST} are needed")
    bad = np.asarray(~np.isfinite(points).all(1))
    if bad.any():
        first = int(np.argmax(bad))
        raise bad_input(f"{what}: {bad.sum()} of {len(bad)} rows hold NaN or infinity, the first is row {first}",
                        "leave those rows out on both sides: --drop-bad")  # fmt: skip
    varying = (points != points[0]).any(0)
    flags = () if varying.all() or not varying.any() else ("constant_columns",)
    whole = points.shape[1] == 1 and bool((points == np.round(points)).all())
    if labels and not whole:
        raise bad_input(f"{what} holds labels that are no whole numbers", "classes are numbers from 0 on")
    kept = np.ascontiguousarray(points[:, varying]) + 0.0
    codes = row_codes(kept) if kept.shape[1] else np.zeros(len(points), np.int64)
    distinct = int(codes.max()) + 1
    discrete = whole and distinct <= _MOST_LABELS and distinct * 5 <= len(points)
    if not varying.any():
        return Variable(kept, codes, 1.0, ("constant",))
    repeated = 1 - distinct / len(points)
    if (labels is None and not discrete) or labels is False:
        return Variable(kept, None, repeated, (*flags, *_shape_flags(kept, repeated)))
    return Variable(kept, codes, repeated, flags)


def _shape_flags(points: Floats, repeated: float) -> tuple[str, ...]:
    flags = []
    if repeated > 0.01:
        flags.append("duplicates")
    centred = points - np.median(points, 0)
    moments = np.square(centred).mean(0)
    if (np.square(np.square(centred)).mean(0) / np.square(moments) - 3 > _HEAVY).any():
        flags.append("heavy_tails")
    if points.shape[1] > 1 and repeated < 0.01 and _on_manifold(points):
        flags.append("manifold")
    return tuple(flags)


def _on_manifold(points: Floats) -> bool:
    """Whether the second neighbour is as much farther than the first as in under 0.7 of the coordinates (TwoNN)."""
    part = points[:4000]
    scale = part.std(0)
    tree = build(part[:, scale > 0] / scale[scale > 0]) if (scale > 0).sum() > 1 else None
    if tree is None:
        return True
    queries = np.arange(min(len(part), 1000))
    apart = kth_distances(tree, queries, 2)
    ratios = np.log(apart[apart[:, 0] > 0, 1] / apart[apart[:, 0] > 0, 0])
    return len(ratios) > 0 and bool(
        1 / max(ratios.mean(), 1e-12) < 0.7 * _expected_dimension(points.shape[1])
    )


def _expected_dimension(width: int) -> float:
    """What TwoNN gives for a cloud that fills its space, with some thousand rows: fewer than its coordinates."""
    return width if width <= 5 else 5 + (width - 5) ** 0.75
