"""What the planes show: when a layer fits, by how much it compresses, and what speaks against believing it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from bntools.tools.ib_analyze.points import Point
from bntools.tools.ib_analyze.settings import Planes

_SURE = 1.96
SATURATED = 0.95
_GROWTH = 2.0


def phases(points: list[Point], settings: Planes) -> list[dict[str, Any]]:
    """For each layer the epoch of its largest I(X; T) and the compression from there to the end, with an interval.

    The interval is that of paired differences over the measured rows. `significant`: it excludes 0 at two of three
    sigmas, or at the only one; `flips`: the sigmas disagree.
    """
    result = []
    for layer in dict.fromkeys(point.layer for point in points):
        own = [point for point in points if point.layer == layer]
        each = [_compression(own, sigma) for sigma in range(len(settings.sigmas))]
        sure = [entry["low"] > 0 for entry in each]
        result.append({
            "layer": layer, **each[settings.shown], "significant": sum(sure) * 3 >= 2 * len(sure),
            "flips": len(set(sure)) > 1,
            "sigmas": [{"sigma": s, **entry} for s, entry in zip(settings.sigmas, each, strict=True)],
        })  # fmt: skip
    return result


def _compression(own: list[Point], sigma: int) -> dict[str, Any]:
    means = [point.x[sigma].mean() for point in own]
    peak = int(np.argmax(means))
    lost = own[peak].x[sigma] - own[-1].x[sigma]
    half = _SURE * lost.std() / math.sqrt(len(lost))
    return {"fitted_epoch": own[peak].epoch, "value": float(lost.mean()), "low": float(lost.mean() - half),
            "high": float(lost.mean() + half)}  # fmt: skip


def order_violations(points: list[Point], settings: Planes) -> list[dict[str, Any]]:
    """Where a later layer tells more of the input than an earlier one, by more than two errors of paired terms.

    A layer is computed from the one before, so without noise it cannot; with noise added to each layer apart it can,
    and a plane where it does shows the noise, not the network.
    """
    violations, sigma = [], settings.shown
    for epoch in sorted({point.epoch for point in points}):
        row = [point for point in points if point.epoch == epoch]
        for before, after in itertools.pairwise(row):
            gain = after.x[sigma] - before.x[sigma]
            slack = before.slack[sigma] + after.slack[sigma] if settings.estimator == "mixture" else 0.0
            if gain.mean() > 2 * gain.std() / math.sqrt(len(gain)) + 1e-9 and gain.mean() > 0.02:
                violations.append({"epoch": epoch, "layer": after.layer, "before": before.layer,
                              "gain": float(gain.mean()), "bounds_overlap": bool(gain.mean() <= slack)})  # fmt: skip
    return violations


def warnings(points: list[Point], settings: Planes, count: int) -> list[str]:
    """Sentences a reader of the plane should know."""
    said, sigma, cap = [], settings.shown, math.log(count)
    full = [point for point in points if point.x[sigma].mean() > SATURATED * cap]
    if full:
        layers = ", ".join(dict.fromkeys(point.layer for point in full))
        said.append(f"saturated: {len(full)} of {len(points)} values exceed {SATURATED:.0%} of ln n (layers {layers}): "
                    "they say how many rows there are, not what the layer tells")  # fmt: skip
    violations = order_violations(points, settings)
    if violations:
        said.append(f"order: {len(violations)} times a layer tells more of the input than the layer before it: "
                    "noise is not comparable between these layers")  # fmt: skip
    if settings.noise == "absolute" and settings.estimator != "binning":
        for layer in dict.fromkeys(point.layer for point in points):
            levels = [point.level for point in points if point.layer == layer]
            if max(levels) > _GROWTH * max(min(levels), 1e-12):
                said.append(f"scale: layer {layer} grows {max(levels) / max(min(levels), 1e-12):.1f} times while the "
                            "noise stays: --noise relative")  # fmt: skip
    if settings.estimator == "binning" and isinstance(settings.limits, tuple):
        said.append("bins: values beyond the fixed range share the end bins, which looks like compression")
    return said
