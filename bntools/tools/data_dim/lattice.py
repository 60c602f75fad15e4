"""Coordinates on a coarse grid: noticed, and spread over their cells; and what a reader of a report is to be told."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELLS = 100
"""Cells of the grid a row up to which distances between its corners are tied so often that they say nothing."""
_LEVELS = 2
"""Rows a column's distinct value has at least, on average, if it is one of a grid."""
_TWINS, _SHARE = 100.0, 0.05
"""Ratio of the distances to the second and the nearest point that makes them twins, and the share to be told of."""
_TIED = 1e-9
_EXCESS = 1.1


def spread(points: Floats) -> Floats | None:
    """The points [N, D], each moved within its cell of the grid by chance; None where they are on no coarse grid.

    Values on a grid are taken for rounded ones, so what they were is anywhere within half a spacing.
    """
    levels = [np.unique(column) for column in points.T[: int(np.log2(CELLS * len(points))) + 1]]
    if len(levels) < points.shape[1]:
        return None
    counts = np.array([len(values) for values in levels])
    if counts.max() * _LEVELS > len(points) or np.log(counts).sum() > np.log(CELLS * len(points)):
        return None
    spacing = np.array([np.diff(values).min() for values in levels])
    return points + spacing * (np.random.default_rng(0).random(points.shape) - 0.5)


def warnings(distances: Floats, report: dict[str, Any], spread_out: bool) -> list[dict[str, str]]:
    """Objects of a stable `name` and a `text`: ties, twins, rounding, and every null of a report."""
    named = []
    tied = float((distances[:, 1] <= distances[:, 0] * (1 + _TIED)).mean())
    twins = float((distances[:, 1] > distances[:, 0] * _TWINS).mean())
    close = report["n_close"] / (report["n_close"] + len(distances))
    if spread_out:
        named.append(
            ("grid", "the coordinates lie on a coarse grid: each was moved by chance within half a spacing")
        )
    for name, share, text in (
        ("ties", tied, "have two nearest at one distance: the finest scale says little"),
        (
            "twins",
            twins,
            "have a twin, 100 times nearer than the next point: the finest scale is the gap in a pair",
        ),
        (
            "rounding",
            close,
            "are within rounding of another and are not measured: store them in a finer type",
        ),
    ):
        if share > _SHARE:
            named.append((name, f"{100 * share:.0f} % of the points {text}"))
    null = [name for name, each in report["estimators"].items() if None in (each["value"], each["high"])]
    if null:
        named.append(
            ("no-estimate", f"{', '.join(null)}: null, since distances are tied or the blocks do not agree")
        )
    return [{"name": name, "text": text} for name, text in named]


def bounded(estimate: dict[str, Any], features: int) -> bool:
    """Bring an estimate in place down to the number of coordinates; whether it was well above that."""
    over = estimate["value"] is not None and estimate["value"] > _EXCESS * features
    for key in ("value", "low", "high"):
        if estimate.get(key) is not None:
            estimate[key] = min(estimate[key], float(features))
    if estimate.get("families"):
        estimate["families"] = {key: min(each, float(features)) for key, each in estimate["families"].items()}
    return over
