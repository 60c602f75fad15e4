"""Two pictures: the score over the dimension, and the dimension over widths and depths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bntools.core.report import pictures
from bntools.tools.intrinsic_dim.report import dimension_key, ends, number


def draw(report: dict[str, Any], path: str) -> None:
    """Draw a report of kind `intrinsic-dim` to .svg, .png or .pdf; same report, same bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    if "grid" in report:
        _heat(figure, axes, report)
    else:
        _curve(axes, report)
    pictures.save(figure, path)


def _curve(axes: Any, report: dict[str, Any]) -> None:
    dark, grey = "#1a1a1a", "#8a8a8a"
    runs = [run for run in report["runs"] if run["dim"] is not None and run["start"] is None]
    whole = [run for run in runs if run["phase"] == "confirm"]
    others = [run for run in runs if run["phase"] != "confirm"]
    axes.scatter([r["dim"] for r in others], [r["score"] for r in others], s=14, facecolors="none", edgecolors=grey,
                 linewidths=0.8, label="search, one seed")  # fmt: skip
    axes.scatter(
        [r["dim"] for r in whole], [r["score"] for r in whole], s=16, color=dark, label="confirmed runs"
    )
    axes.plot([c["dim"] for c in report["curve"]], [c["fit"] for c in report["curve"]], color=dark, lw=1.2,
              label="monotone fit")  # fmt: skip
    axes.axhline(report["baseline"]["mean"], color=dark, ls="--", lw=1)
    axes.axhline(report["target"], color=dark, ls=":", lw=1)
    share = f"{100 * report['threshold']:g} %"
    for height, text in (
        (report["baseline"]["mean"], f"all {report['D']:,} parameters"),
        (report["target"], share),
    ):
        axes.annotate(
            text, (0.01, height), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color=dark
        )
    dimension = report[dimension_key(report)]
    if dimension["value"] is not None:
        dims = [c["dim"] for c in report["curve"]]  # an open end is as far as dimensions were tried
        axes.axvspan(dimension["low"] or dims[0], dimension["high"] or dims[-1], color=grey, alpha=0.3, lw=0)
        axes.axvline(dimension["value"], color=dark, lw=0.8)
    axes.set(xscale="log")
    ticks = _ticks([c["dim"] for c in report["curve"]], [run["dim"] for run in runs])
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="dimension d of the subspace", ylabel=_name(report))
    axes.set_title(_title(report), fontsize=10)
    axes.legend(fontsize=8, loc="best", frameon=False)
    _sides(axes)


def _ticks(curve: list[int], all_dims: list[int]) -> list[int]:
    """Dimensions to write at the axis: those of the curve first, none so near another that they would overlap."""
    least = math.log(max(all_dims) / min(all_dims)) * 0.075
    chosen: list[int] = []
    for dim in [*sorted(curve), *sorted(set(all_dims))]:
        if all(abs(math.log(dim / other)) > least for other in chosen):
            chosen.append(dim)
    return sorted(chosen)


def _title(report: dict[str, Any]) -> str:
    key = dimension_key(report)
    dimension = report[key]
    what = f"{report['model']} on {Path(report['data']).name}"
    if dimension["value"] is None:
        return f"{what}: {key} not reached"
    return f"{what}: {key} = {number(dimension['value'])}" + (
        f", 95 %: {ends(dimension)}" if ends(dimension) else ""
    )


def _name(report: dict[str, Any]) -> str:
    return {"accuracy": "test accuracy", "return": "mean return (steps)"}.get(
        report["scored"], "minus loss (nats/token)"
    )


def _heat(figure: Any, axes: Any, report: dict[str, Any]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    cells = report["grid"]
    key = dimension_key(cells[0])
    widths, depths = (sorted({cell[name] for cell in cells}) for name in ("width", "depth"))
    table = [[float("nan")] * len(widths) for _ in depths]
    for cell in cells:
        value = cell[key]["value"]
        row, column = depths.index(cell["depth"]), widths.index(cell["width"])
        table[row][column] = float("nan") if value is None else value
    shades = LinearSegmentedColormap.from_list(
        "shades", ["#ffffcc", "#fdae6b"]
    )  # black figures stand out on all of them, in grey, too
    image = axes.imshow(table, cmap=shades, origin="lower", aspect="auto")
    for cell in cells:
        row, column = depths.index(cell["depth"]), widths.index(cell["width"])
        dimension = cell[key]
        text = (
            "not reached"
            if dimension["value"] is None
            else f"{number(dimension['value'])}\n{ends(dimension)}"
        )
        axes.text(column, row, f"{text}\nD = {cell['D']:,}", ha="center", va="center", fontsize=9)
    axes.set(xticks=range(len(widths)), xticklabels=widths, yticks=range(len(depths)), yticklabels=depths,
             xlabel="width of a hidden layer", ylabel="hidden layers")  # fmt: skip
    axes.set_title(f"{key} on {Path(report['data']).name}", fontsize=10)
    figure.colorbar(image, label=key)


def _sides(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
