"""What is said to bound the gap between test and training loss, beside that gap: over epochs, and over runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bntools.core.errors import bad_input
from bntools.tools.ib_analyze.points import Point
from bntools.tools.ib_analyze.settings import Planes

_SURE = 1.96
_FEWEST, _NOTABLE = 4, 0.1


def gap_report(points: list[Point], losses: dict[int, dict[str, float]], settings: Planes) -> dict[str, Any]:
    """sqrt((I(X; T | Y) + 1) / n) of the last layer but the output beside the loss on test less training rows.

    What Kawaguchi et al. (2023, theorem 1) say the gap grows with: a scaling, no certified bound. `rank_correlation`
    is Spearman's over epochs. I(X; T | Y) is I(X; T) - I(T; Y), as Y - X - T is a Markov chain; `classwise` is it
    estimated within each class, and `discrepancy` how much larger the difference is.
    """
    layers = list(dict.fromkeys(point.layer for point in points))
    layer = layers[-2] if len(layers) > 1 else layers[-1]
    entries = []
    for point in points:
        known = losses.get(point.epoch, {})
        if point.layer != layer or not {"train_loss", "test_loss", "n_train"} <= set(known):
            continue
        if point.y is None:
            raise bad_input("--gap needs labels", "--labels FILE, of the dump's rows")
        conditional = max(float(point.x[settings.shown].mean() - np.nanmean(point.y[settings.shown])), 0.0)
        entries.append({
            "epoch": point.epoch, "conditional": conditional, **both_ways(point, settings),
            "scaling": math.sqrt((conditional + 1) / known["n_train"]),
            "gap": known["test_loss"] - known["train_loss"],
        })  # fmt: skip
    if not entries:
        raise bad_input(
            "--gap needs the losses of the epochs",
            "--losses losses.jsonl: epoch, train_loss, test_loss, n_train",
        )
    return {"layer": layer, "epochs": entries, "rank_correlation": rank_correlation(entries)}


def both_ways(point: Point, settings: Planes) -> dict[str, Any]:
    """I(X; T | Y) class by class, and how far the difference exceeds it, with the interval of paired terms; nats."""
    if point.within is None or point.y is None or not np.isfinite(point.within).any():
        return {}
    excess = point.x[settings.shown] - point.y[settings.shown] - point.within
    excess = excess[np.isfinite(excess)]
    half = _SURE * float(excess.std()) / math.sqrt(len(excess))
    value = float(excess.mean())
    return {
        "classwise": float(np.nanmean(point.within)),
        "discrepancy": {"value": value, "low": value - half, "high": value + half},
    }


def over_runs(runs: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The last epochs of several runs side by side, and Spearman's correlation of scaling and gap over runs."""
    entries = [{"run": name, **gap["epochs"][-1]} for name, gap in runs]
    return {"runs": entries, "rank_correlation_of_runs": rank_correlation(entries)}


def rank_correlation(entries: list[dict[str, Any]]) -> float | None:
    """Spearman's correlation of scaling and gap; None for fewer than 4 or where one of them does not vary."""
    scalings, gaps = ([entry[key] for entry in entries] for key in ("scaling", "gap"))
    if len(entries) < _FEWEST or len(set(scalings)) < 2 or len(set(gaps)) < 2:
        return None
    return float(spearmanr(scalings, gaps)[0])  # type: ignore[arg-type]


def disagreement(gap: dict[str, Any]) -> list[str]:
    """A warning where both ways to I(X; T | Y) differ for sure, by more than a tenth of a nat, at most epochs."""
    excess = [entry["discrepancy"] for entry in gap["epochs"] if "discrepancy" in entry]
    sure = [e for e in excess if abs(e["value"]) > _NOTABLE and (e["low"] > 0 or e["high"] < 0)]
    if 2 * len(sure) <= len(excess):
        return []
    worst = max(sure, key=lambda entry: abs(entry["value"]))
    return [
        f"gap: I(X;T) - I(T;Y) and I(X;T|Y) by class differ by up to {worst['value']:+.2f} nats: one is biased, most "
        "often the difference, whose first term is of compressed inputs"
    ]
