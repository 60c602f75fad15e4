"""From a dump to the report: every point, phases, order, warnings, and the bound on the generalization gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.information.epochs import Dump
from bntools.core.work.folder import Work
from bntools.core.work.shards import Shard
from bntools.kernels.information.histogram import entropy
from bntools.tools.ib_analyze import parts
from bntools.tools.ib_analyze.gap import both_ways, disagreement, gap_report
from bntools.tools.ib_analyze.phases import order_violations, phases, warnings
from bntools.tools.ib_analyze.points import Point, shared
from bntools.tools.ib_analyze.settings import Planes

Indices = NDArray[np.int64]
FEWEST = 50


@dataclass(frozen=True)
class RunOptions:
    """How the points come about, which changes none of them: a folder that keeps them, parts to join, threads."""

    work: str | None = None
    gather: Sequence[str] = ()
    threads: int = 1
    advance: Callable[[int], None] = lambda count: None


ALONE = RunOptions()


def analyze(
    dump: Dump,
    labels: Indices | None,
    settings: Planes,
    *,
    gap: bool = False,
    losses: dict[int, dict[str, float]] | None = None,
    how: RunOptions = ALONE,
) -> dict[str, Any]:
    """The report of bntools-ib-analyze(1). labels [N]: classes of the dump's rows, its own if None.

    losses: by epoch, beside those the dump holds. Raises BnError (exit 3) for labels of other rows, fewer than 50
    rows, `compressed` without inputs, a gap without losses, or parts that are missing or of another dump.
    """
    labels = dump.labels if labels is None else labels
    settings = replace(settings, conditional=settings.conditional or gap)
    points = _points(dump, labels, settings, how)
    cap = math.log(dump.rows)
    label_cap = None if labels is None else min(cap, entropy(np.bincount(labels), corrected=False))
    report = {
        "kind": "ib-analyze", "units": settings.units, "estimator": settings.estimator, "noise": settings.noise,
        "sigma": settings.sigmas[settings.shown], "rows": dump.rows, "measured_rows": points[0].x.shape[1],
        "layers": dump.layers, "epochs": dump.epochs,
        "points": [_entry(point, settings, cap, label_cap) for point in points],
        "phases": [_in_units(entry, settings) for entry in phases(points, settings)],
        "order_violations": order_violations(points, settings), "warnings": warnings(points, settings, dump.rows),
        "baseline": {"label_entropy": _scaled(label_cap, settings), "log_rows": _scaled(cap, settings)},
    }  # fmt: skip
    if gap:
        report["gap"] = gap_report(points, {**dump.facts, **(losses or {})}, settings)
        report["warnings"] += disagreement(report["gap"])
    return report


def write_part(
    dump: Dump,
    labels: Indices | None,
    settings: Planes,
    shard: Shard,
    *,
    place: tuple[str, bool],
    how: RunOptions = ALONE,
) -> dict[str, Any] | None:
    """Measure and write part I of N of the layers and epochs; returns the manifest. Raises BnError as `analyze`."""
    labels = dump.labels if labels is None else labels
    _check(dump, labels, settings)
    chosen = shard.of([entry.artifact.entries[entry.tensor].numel for entry in dump.places])
    mine = dump._replace(places=[dump.places[index] for index in chosen])
    told = parts.decides(dump, labels, settings)
    points = _measured(mine, labels, settings, how, told) if mine.places else []
    return parts.write(dump, points, chosen, shard, told=told, place=place)


def gap_of_run(dump: Dump, settings: Planes, how: RunOptions = ALONE) -> dict[str, Any]:
    """The gap's report of another run, at its last epoch alone. Raises BnError as `analyze`."""
    layers = dump.layers
    layer = layers[-2] if len(layers) > 1 else layers[-1]
    last = [place for place in dump.places if place.epoch == dump.epochs[-1] and place.layer == layer]
    settings = replace(settings, conditional=True)
    points = _points(dump._replace(places=last), dump.labels, settings, replace(how, work=None, gather=()))
    return gap_report(points, dump.facts, settings)


def _points(dump: Dump, labels: Indices | None, settings: Planes, how: RunOptions) -> list[Point]:
    _check(dump, labels, settings)
    told = parts.decides(dump, labels, settings)
    if how.gather:
        return parts.read(how.gather, dump, told, how.advance)
    return _measured(dump, labels, settings, how, told)


def _measured(
    dump: Dump, labels: Indices | None, settings: Planes, how: RunOptions, told: dict[str, Any]
) -> list[Point]:
    """Each place's point in the dump's order; as many layers in memory as there are threads."""
    common = shared(dump, labels, settings)
    work = None if how.work is None else Work(how.work, told)
    try:
        with ThreadPoolExecutor(max(1, how.threads)) as pool:
            return list(
                _counted(pool.map(lambda p: parts.measured(p, common, settings, work), dump.places), how)
            )
    finally:
        if work is not None:
            work.close()


def _counted(points: Iterator[Point], how: RunOptions) -> Iterator[Point]:
    for point in points:
        how.advance(1)
        yield point


def _check(dump: Dump, labels: Indices | None, settings: Planes) -> None:
    if dump.rows < FEWEST:
        raise bad_input(f"the dump has {dump.rows} rows, at least {FEWEST} are needed", "record more rows")
    if labels is not None and len(labels) != dump.rows:
        raise bad_input(
            f"{len(labels)} labels for {dump.rows} rows", "one label a recorded row, in their order"
        )
    if settings.estimator == "compressed" and dump.inputs is None:
        raise bad_input(
            "--estimator compressed needs the dump's inputs", "a tensor `inputs` beside the layers"
        )


def _entry(point: Point, settings: Planes, cap: float, label_cap: float | None) -> dict[str, Any]:
    sigma = settings.shown
    entry: dict[str, Any] = {
        "epoch": point.epoch, "layer": point.layer,
        "I_XT": _figure(point.x[sigma], float(point.slack[sigma]), cap, settings),
        "effective_rank": point.effective, "rms": point.level,
    }  # fmt: skip
    entry["I_XT"]["sigmas"] = [_scaled(float(terms.mean()), settings) for terms in point.x]
    if settings.estimator == "compressed":
        loss = float(point.loss[sigma])
        entry["I_XT"]["loss_upper"] = _scaled(loss, settings) if math.isfinite(loss) else None
    if point.y is not None and label_cap is not None:
        entry["I_TY"] = _figure(point.y[sigma], 0.0, label_cap, settings)
        conditional = float(point.x[sigma].mean() - np.nanmean(point.y[sigma]))
        entry["I_XT_given_Y"] = _scaled(conditional, settings)
        direct = both_ways(point, settings).get("classwise") if settings.conditional else None
        if direct is not None:
            entry["I_XT_given_Y_classwise"] = _scaled(direct, settings)
    return entry


def _figure(terms: NDArray[np.float64], slack: float, cap: float, settings: Planes) -> dict[str, Any]:
    terms = terms[np.isfinite(terms)]
    half = slack + 1.96 * float(terms.std()) / math.sqrt(len(terms))
    value = float(terms.mean())
    flags = ["saturated"] if value > 0.95 * cap else []
    return {
        "value": _scaled(min(max(value, 0.0), cap), settings),
        "low": _scaled(min(max(value - half, 0.0), cap), settings),
        "high": _scaled(min(max(value + half, 0.0), cap), settings),
        "cap": _scaled(cap, settings), "flags": flags,
    }  # fmt: skip


def _scaled(value: float | None, settings: Planes) -> float | None:
    if value is None:
        return None
    return value / math.log(2) if settings.units == "bits" else value


def _in_units(entry: dict[str, Any], settings: Planes) -> dict[str, Any]:
    scaled = {key: _scaled(entry[key], settings) for key in ("value", "low", "high")}
    inner = [{**one, **{key: _scaled(one[key], settings) for key in scaled}} for one in entry["sigmas"]]
    return {**entry, **scaled, "sigmas": inner}
