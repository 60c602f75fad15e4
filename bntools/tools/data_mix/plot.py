"""A picture: the simplex of three sources, or bars with intervals, and the curve over N. Readable in grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.report import pictures

Floats = NDArray[np.floating[Any]]

_GRID = 40
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def draw(report: dict[str, Any], surface: tuple[Floats, Floats], pilots: Floats, path: str) -> None:
    """Draw to .svg, .png or .pdf; surface: mixtures [k, sources] and the metric expected at them, pilots [runs, sources]."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9.2, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        if len(report["sources"]) == 3:
            _simplex(figure, left, report, (surface, pilots))
        else:
            _bars(left, report)
        _curve(right, report)
        pictures.save(figure, path)


def _simplex(figure: Any, axes: Any, report: dict[str, Any], shown: tuple[tuple[Floats, Floats], Floats]) -> None:
    (mixtures, value), pilots = shown
    x, y = (mixtures @ _CORNERS).T
    drawn = axes.tricontourf(x, y, value, levels=12, cmap="gray")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=f"expected {report['metric']} at {report['at']:,}")
    axes.plot(*(np.vstack([_CORNERS, _CORNERS[:1]]).T), color="black", lw=0.8)
    axes.plot(*(pilots @ _CORNERS).T, "o", ms=3.5, mfc="white", mec="black", mew=0.6, label="pilots")
    for name, marker, label in (
        ("mixture", "*", "advised"), ("uniform", "s", "uniform"), ("best_pilot", "D", "best pilot")
    ):  # fmt: skip
        entry = report if name == "mixture" else report["baselines"][name]
        place = np.array([entry["mixture"][s] for s in report["sources"]]) @ _CORNERS
        size = 13 if marker == "*" else 6
        axes.plot(*place, marker, ms=size, mfc="white" if marker == "*" else "none", mec="black", mew=1.1, label=label)
    for name, corner, (dx, dy) in zip(report["sources"], _CORNERS, ((0, -12), (0, -12), (0, 6)), strict=True):
        axes.annotate(name, corner, xytext=(dx, dy), textcoords="offset points", ha="center")
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(-0.05, 1.02))


def _bars(axes: Any, report: dict[str, Any]) -> None:
    """The metric of the advised mixture and of the baselines, with intervals; weights in the labels."""
    entries = [("advised", report), *((k.replace("_", " "), v) for k, v in report["baselines"].items())]
    rows = np.arange(len(entries))[::-1]
    for row, (_, entry) in zip(rows, entries, strict=True):
        p = entry["predicted"]
        axes.plot(p["value"], row, "o", ms=5, mfc="0.6", mec="black")
        if p["low"] is not None:
            axes.hlines(row, p["low"], p["high"], color="black", lw=1.2)
    labels = [f"{name}\n{_weights(report, entry)}" for name, entry in entries]
    axes.set_yticks(rows, labels, fontsize=8)
    axes.set(xlabel=f"{report['metric']} at {report['at']:,}")
    axes.spines[["top", "right"]].set_visible(False)


def _weights(report: dict[str, Any], entry: dict[str, Any]) -> str:
    top = sorted(report["sources"], key=lambda s: -entry["mixture"][s])[:3]
    return " ".join(f"{name} {entry['mixture'][name]:.2f}" for name in top)


def _curve(axes: Any, report: dict[str, Any]) -> None:
    n = [point["n"] for point in report["curve"]]
    low, value, high = ([point[key] for point in report["curve"]] for key in ("low", "value", "high"))
    axes.fill_between(n, low, high, color="0.85", lw=0, label="interval of a new run")
    axes.plot(n, value, "-", color="black", lw=1.2, label="mixture advised")
    base = report["baselines"]["best_pilot"]
    axes.plot(base["n"], base["measured"], "D", ms=6, mfc="none", mec="black", label="best pilot, measured")
    uniform = report["baselines"]["uniform"]["predicted"]
    at = report["at"]
    if uniform["low"] is not None:
        axes.errorbar(at, uniform["value"], [[uniform["value"] - uniform["low"]], [uniform["high"] - uniform["value"]]],
                      fmt="s", color="0.5", ms=5, capsize=3, label="uniform")  # fmt: skip
    axes.set(xscale="log", xlabel="N (rows or tokens of training)", ylabel=report["metric"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
