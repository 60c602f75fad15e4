"""The scale curve as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bntools.core.errors import require, usage

FORMATS = (".svg", ".png", ".pdf")


def check(path: str) -> None:
    """Before the work: raises BnError, exit 2 for a name nothing can be drawn to, 5 without matplotlib."""
    if Path(path).suffix.lower() not in FORMATS:
        raise usage(f"--plot {path}: no picture format", f"end the name in {', '.join(FORMATS)}")
    if not Path(path).absolute().parent.is_dir():
        raise usage(f"--plot {path}: no such folder", "make it first")
    require("matplotlib", "plot")


def draw(report: dict[str, Any], path: str) -> None:
    """Draw GRIDE against the mean distance it sees, and the report's estimate as a band; replaces the file at once."""
    figure = _figure(report)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    metadata = {"Date": None} if target.suffix.lower() == ".svg" else None  # the same report, the same bytes
    try:
        figure.savefig(partial, format=target.suffix[1:].lower(), dpi=150, metadata=metadata)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _figure(report: dict[str, Any]) -> Any:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    mpl.rcParams["svg.hashsalt"] = "bntools"
    scale = [s for s in report["scale"] if s["high"] is not None]
    best = report["dimension"]
    distances, values = [s["distance"] for s in scale], [s["value"] for s in scale]
    errors = [[s["value"] - s["low"] for s in scale], [s["high"] - s["value"] for s in scale]]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    top = [s["high"] for s in scale]
    if best["high"] is not None:
        top.append(best["high"])
        axes.axhspan(best["low"], best["high"], color="0.85", label="its 95 % interval")
        axes.axhline(
            best["value"], color="0.3", linestyle="--", label=f"{report['estimator']}: {best['value']:.3g}"
        )
    axes.errorbar(distances, values, errors, color="black", marker="o", capsize=3, label="GRIDE (95 %)")
    for s in scale:
        axes.annotate(
            str(s["neighbours"]), (s["distance"], s["low"]), xytext=(0, -5), textcoords="offset points",
            ha="center", va="top", fontsize=8, color="0.3",
        )  # fmt: skip
    axes.set_xscale("log")
    for form in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        form(ScalarFormatter())
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.set_xlabel("mean distance of the farther neighbour (its rank below each point)")
    axes.set_ylabel("intrinsic dimension")
    axes.set_ylim(bottom=0, top=1.25 * max(top, default=1.0))
    axes.set_title(f"{report['n_points']:,} points with {report['n_features']:,} coordinates", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure
