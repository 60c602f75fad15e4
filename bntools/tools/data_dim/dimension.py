"""All estimates of one point cloud: neighbours once, then each estimator with a jackknife interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.progress import Progress, no_progress
from bntools.kernels.neighbours.exact import Neighbours, count_within, nearest
from bntools.tools.data_dim import estimators
from bntools.tools.data_dim.calibrated import (
    ANGLE_NEIGHBOURS,
    FEWEST_CALIBRATED,
    NEIGHBOURS,
    calibrate,
    statistics,
)
from bntools.tools.data_dim.lattice import bounded, warnings
from bntools.tools.data_dim.points import FEWEST, Cloud, clean

Floats = NDArray[np.float64]

NAMES = ("calibrated", "twonn", "twonn_fit", "mle", "gride", "corrint", "lpca")
FARTHEST = 128
_BLOCKS = 40
_PCA_POINTS, _PCA_NEIGHBOURS = 1000, 50
_RADII = (10, 20)


@dataclass(frozen=True)
class Settings:
    """estimators: names of NAMES; queries: points whose neighbourhoods are measured, at most."""

    estimators: tuple[str, ...] = NAMES
    queries: int = 5000
    seed: int = 0
    threads: int | None = None


class Measured(NamedTuple):
    """Distances and indices [M, K] of the measured points' neighbours, the points' indices [M], their blocks [M]."""

    distances: Floats
    indices: NDArray[np.int64]
    rows: NDArray[np.int64]
    blocks: NDArray[np.int64]


def data_dimension(
    array: NDArray[Any],
    settings: Settings = Settings(),
    precision: float | None = None,
    progress: Progress = no_progress,
    neighbours: Neighbours | None = None,
) -> dict[str, Any]:
    """Intrinsic dimension of points [..., D], leading axes flattened: the report of bntools-data-dim(1).

    precision: relative rounding of the numbers where they come from a coarser type than the array's; neighbours: of
    all measured points, where parts have found them. Intervals are
    95 %. Raises BnError (exit 3) when fewer than 50 distinct points are left, or 100 for the calibrated estimate.
    """
    cloud = clean(array, rounding(array) if precision is None else precision)
    measured, close = measure(cloud, settings, progress, neighbours)
    estimates = {name: _ESTIMATES[name](cloud, measured, settings) for name in settings.estimators}
    first = "calibrated" if "calibrated" in estimates else settings.estimators[0]
    excess = [name for name, each in estimates.items() if bounded(each, cloud.points.shape[1])]
    report = {
        "kind": "data-dim",
        "dimension": {key: estimates[first][key] for key in ("value", "low", "high")},
        "estimator": first,
        "estimators": estimates,
        "scale": scale_curve(measured),
        "n_points": len(cloud.points),
        "n_features": cloud.points.shape[1],
        "n_queries": len(measured.rows),
        "n_duplicates": cloud.duplicates + close,
        "dropped": {"rows": cloud.dropped_rows, "columns": cloud.dropped_columns},
        "n_close": close,
    }
    return _finished(report, measured, cloud, excess)


def _finished(report: dict[str, Any], measured: Measured, cloud: Cloud, excess: list[str]) -> dict[str, Any]:
    """The report with distances in the units of the points, and what its reader is to be told."""
    for each in report["scale"]:
        bounded(each, cloud.points.shape[1])
        each["distance"] = _finite({"": np.ldexp(each["distance"], cloud.exponent)})[""]
    named = warnings(measured.distances, report, cloud.spread)
    if excess:
        text = f"{', '.join(excess)}: over the number of coordinates, which is put instead"
        named.append({"name": "above-features", "text": text})
    del report["n_close"]
    return report | {"warnings": named}


def rounding(array: NDArray[Any]) -> float:
    """Relative rounding of an array's own type."""
    return float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0


def chosen_rows(count: int, settings: Settings, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of the points whose neighbourhoods are measured, ascending."""
    if settings.queries >= count:
        return np.arange(count)
    return np.sort(rng.choice(count, settings.queries, replace=False))


def measure(
    cloud: Cloud, settings: Settings, progress: Progress, neighbours: Neighbours | None = None
) -> tuple[Measured, int]:
    """Neighbours of a random choice of points among all points, and how many coincided within rounding.

    A point whose nearest neighbour is as near as the rounding of its coordinates has no ratio of distances that
    means anything; it is counted and not measured, but stays a neighbour of others.
    """
    points, rng = cloud.points, np.random.default_rng(settings.seed)
    rows = chosen_rows(len(points), settings, rng)
    k = min(FARTHEST, len(points) - 1)
    if neighbours is None:
        with progress("neighbours", len(rows)) as advance:
            neighbours = nearest(points, rows, k, settings.threads, advance)
    near = neighbours
    noise = cloud.precision * np.sqrt(np.square(points[rows]).sum(1))
    apart = near.distances[:, 0] > noise
    if apart.sum() < FEWEST:
        raise bad_input(
            f"only {apart.sum()} of {len(rows)} points differ from their nearest by more than rounding",
            "store differences of the points from their mean, in a finer type",
        )
    rows = rows[apart]
    return Measured(near.distances[apart], near.indices[apart], rows, _blocks(points, rows, rng)), int(
        (~apart).sum()
    )


def cost(shape: tuple[int, ...], settings: Settings) -> dict[str, int]:
    """What a run on points of a shape takes: points, neighbourhoods, float operations and bytes, none of it exact."""
    features = shape[-1] if len(shape) > 1 else 1
    count = int(np.prod(shape)) // max(1, features)
    queries = min(count, settings.queries)
    passes = 2 if "corrint" in settings.estimators else 1
    memory = 20 * count * features + 32 * queries * FARTHEST + 200_000_000
    return {
        "points": count, "features": features, "queries": queries,
        "operations": 2 * passes * queries * count * features, "memory_bytes": memory,
    }  # fmt: skip


def scale_curve(measured: Measured) -> list[dict[str, float]]:
    """GRIDE at ranks 1:2, 2:4, ..., 64:128: estimates from fine to coarse, with the mean distance they see."""
    r, curve, first = measured.distances, [], 1
    while 2 * first <= r.shape[1]:
        estimate = _interval(lambda keep, n=first: estimators.gride(r[keep], n, 2 * n), measured.blocks)
        curve.append({"neighbours": 2 * first, "distance": float(r[:, 2 * first - 1].mean()), **estimate})
        first *= 2
    return curve


def _blocks(points: Floats, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Cut the measured points into 40 blocks by the nearest of 40 of them: neighbours share their errors."""
    centres = points[rng.choice(rows, min(_BLOCKS, len(rows)), replace=False)]
    nearest_centre = np.empty(len(rows), np.int64)
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) * points.shape[1] // 4_000_000)):
        local = points[rows[part]]
        shifted = np.square(centres).sum(1) - 2 * local @ centres.T
        nearest_centre[part] = shifted.argmin(1)
    return nearest_centre


def _interval(estimate: Callable[[NDArray[np.bool_]], float], blocks: NDArray[np.int64]) -> dict[str, Any]:
    """The estimate over all points and its 95 % interval in ln d, by leaving out one block after another."""
    with np.errstate(divide="ignore", invalid="ignore"):  # tied distances: no ratio, no estimate
        value = estimate(np.ones(len(blocks), bool))
        logs = np.log([estimate(blocks != block) for block in np.unique(blocks)])
        error = float(np.sqrt((len(logs) - 1) / len(logs) * np.square(logs - logs.mean()).sum()))
    return _finite(
        {"value": value, "low": value * np.exp(-1.96 * error), "high": value * np.exp(1.96 * error)}
    )


def _finite(estimate: dict[str, Any]) -> dict[str, Any]:
    """Plain floats, None for what is no number, as JSON has it."""
    return {key: float(x) if np.isfinite(x) else None for key, x in estimate.items()}


def _of_distances(
    function: Callable[[Floats], float],
) -> Callable[[Cloud, Measured, Settings], dict[str, float]]:
    def estimate(cloud: Cloud, measured: Measured, settings: Settings) -> dict[str, float]:
        return _interval(lambda keep: function(measured.distances[keep]), measured.blocks)

    return estimate


def _calibrated(cloud: Cloud, measured: Measured, settings: Settings) -> dict[str, Any]:
    """The interval spans the three families, each widened by the jackknife's error of the statistics."""
    r, count = measured.distances[:, :NEIGHBOURS], len(cloud.points)
    if count < FEWEST_CALIBRATED:
        raise bad_input(
            f"{count} distinct points are too few for the calibrated estimate: {FEWEST_CALIBRATED} are needed",
            "use --estimator gride, or more points",
        )
    cosines = estimators.squared_cosines(cloud.points, measured.indices[:, :ANGLE_NEIGHBOURS])

    def one(keep: NDArray[np.bool_]) -> float:
        return calibrate(statistics(r[keep], cosines[keep]), count).value

    sampling = _interval(one, measured.blocks)
    if None in sampling.values():
        return {**sampling, "families": {}}
    families = calibrate(statistics(r, cosines), count).families
    factor = sampling["high"] / sampling["value"]
    low, high = min(families.values()) / factor, max(families.values()) * factor
    return {**sampling, "low": low, "high": high, "families": families}


def _corrint(cloud: Cloud, measured: Measured, settings: Settings) -> dict[str, float]:
    radii = np.array([np.median(measured.distances[:, rank - 1]) for rank in _RADII])
    counts = count_within(cloud.points, measured.rows, radii, settings.threads)
    return _interval(lambda keep: estimators.correlation(counts[keep], radii), measured.blocks)


def _lpca(cloud: Cloud, measured: Measured, settings: Settings) -> dict[str, float]:
    near = measured.indices[:_PCA_POINTS, :_PCA_NEIGHBOURS]
    ranks = estimators.local_rank(estimators.local_eigenvalues(cloud.points, near))
    return _interval(lambda keep: float(ranks[keep].mean()), measured.blocks[: len(near)])


_ESTIMATES: dict[str, Callable[[Cloud, Measured, Settings], dict[str, Any]]] = {
    "calibrated": _calibrated,
    "twonn": _of_distances(estimators.twonn),
    "twonn_fit": _of_distances(estimators.twonn_fit),
    "mle": _of_distances(estimators.mle),
    "gride": _of_distances(lambda r: estimators.gride(r, 2, 4)),
    "corrint": _corrint,
    "lpca": _lpca,
}
