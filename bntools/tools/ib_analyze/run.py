"""From a dump to the report: every point, phases, order, warnings, and the bound on the generalization gap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bntools.core.errors import bad_input
from bntools.core.information.epochs import Dump
from bntools.kernels.information.histogram import entropy
from bntools.tools.ib_analyze.phases import order_violations, phases, warnings
from bntools.tools.ib_analyze.points import Point, measure, shared
from bntools.tools.ib_analyze.settings import Planes

Indices = NDArray[np.int64]
FEWEST = 50


def analyze(
    dump: Dump,
    labels: Indices | None,
    settings: Planes,
    *,
    gap: bool = False,
    losses: dict[int, dict[str, float]] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """The report of bntools-ib-analyze(1). labels [N]: classes of the dump's rows, its own if None.

    losses: by epoch, beside those the dump holds. Raises BnError (exit 3) for labels of other rows, fewer than 50
    rows, `compressed` without inputs, or a gap without losses.
    """
    labels = dump.labels if labels is None else labels
    count = _check(dump, labels, settings)
    common = shared(dump, labels, settings)
    points = []
    for place in dump.places:
        points.append(measure(place, common, settings))
        advance(1)
    cap = math.log(count)
    label_cap = None if labels is None else min(cap, entropy(np.bincount(labels), corrected=False))
    report = {
        "kind": "ib-analyze", "units": settings.units, "estimator": settings.estimator, "noise": settings.noise,
        "sigma": settings.sigmas[settings.shown], "rows": count, "measured_rows": len(common.rows),
        "layers": dump.layers, "epochs": dump.epochs,
        "points": [_entry(point, settings, cap, label_cap) for point in points],
        "phases": [_in_units(entry, settings) for entry in phases(points, settings)],
        "order_violations": order_violations(points, settings), "warnings": warnings(points, settings, count),
        "baseline": {"label_entropy": _scaled(label_cap, settings), "log_rows": _scaled(cap, settings)},
    }  # fmt: skip
    if gap:
        report["gap"] = gap_report(points, {**dump.facts, **(losses or {})}, settings)
    return report


def gap_report(points: list[Point], losses: dict[int, dict[str, float]], settings: Planes) -> dict[str, Any]:
    """sqrt((I(X; T | Y) + 1) / n) of the last layer but the output beside the loss on test less training rows.

    What Kawaguchi et al. (2023, theorem 1) say the gap grows with: a scaling, no certified bound. `rank_correlation`
    is Spearman's over epochs.
    """
    layers = list(dict.fromkeys(point.layer for point in points))
    layer = layers[-2] if len(layers) > 1 else layers[-1]
    entries, sigma = [], settings.shown
    for point in points:
        known = losses.get(point.epoch, {})
        if point.layer != layer or not {"train_loss", "test_loss", "n_train"} <= set(known):
            continue
        if point.y is None:
            raise bad_input("--gap needs labels", "--labels FILE, of the dump's rows")
        conditional = max(float(point.x[sigma].mean() - np.nanmean(point.y[sigma])), 0.0)
        entries.append({
            "epoch": point.epoch, "conditional": conditional,
            "scaling": math.sqrt((conditional + 1) / known["n_train"]),
            "gap": known["test_loss"] - known["train_loss"],
        })  # fmt: skip
    if not entries:
        raise bad_input(
            "--gap needs the losses of the epochs",
            "--losses losses.jsonl: epoch, train_loss, test_loss, n_train",
        )
    rank = None
    if len(entries) > 3:
        rank = float(spearmanr([e["scaling"] for e in entries], [e["gap"] for e in entries])[0])  # type: ignore[arg-type]
    return {"layer": layer, "epochs": entries, "rank_correlation": rank}


def _check(dump: Dump, labels: Indices | None, settings: Planes) -> int:
    count = dump.places[0].artifact.entries[dump.places[0].tensor].shape[0]
    if count < FEWEST:
        raise bad_input(f"the dump has {count} rows, at least {FEWEST} are needed", "record more rows")
    if labels is not None and len(labels) != count:
        raise bad_input(f"{len(labels)} labels for {count} rows", "one label a recorded row, in their order")
    if settings.estimator == "compressed" and dump.inputs is None:
        raise bad_input(
            "--estimator compressed needs the dump's inputs", "a tensor `inputs` beside the layers"
        )
    return count


def _entry(point: Point, settings: Planes, cap: float, label_cap: float | None) -> dict[str, Any]:
    sigma = settings.shown
    entry: dict[str, Any] = {
        "epoch": point.epoch, "layer": point.layer,
        "I_XT": _figure(point.x[sigma], float(point.slack[sigma]), cap, settings),
        "effective_rank": point.effective, "rms": point.level,
    }  # fmt: skip
    entry["I_XT"]["sigmas"] = [_scaled(float(terms.mean()), settings) for terms in point.x]
    if settings.estimator == "compressed":
        entry["I_XT"]["loss_upper"] = _scaled(float(point.loss[sigma]), settings)
    if point.y is not None and label_cap is not None:
        entry["I_TY"] = _figure(point.y[sigma], 0.0, label_cap, settings)
        conditional = float(point.x[sigma].mean() - np.nanmean(point.y[sigma]))
        entry["I_XT_given_Y"] = _scaled(conditional, settings)
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
