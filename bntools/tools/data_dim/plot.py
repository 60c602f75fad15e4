"""The scale curve as a picture."""

from __future__ import annotations

from typing import Any

from bntools.core.report import pictures


def draw(report: dict[str, Any], path: str) -> None:
    """Draw GRIDE against the mean distance it sees, and the report's estimate as a band; replaces the file at once."""
    pictures.save(_figure(report), path)


def _figure(report: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

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
