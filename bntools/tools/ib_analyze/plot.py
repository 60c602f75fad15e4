"""The information plane as a picture: raw points, a path a layer from light to dark as training goes on."""

from __future__ import annotations

from typing import Any

from bntools.core.report import pictures


def draw(reports: dict[str, dict[str, Any]], path: str) -> None:
    """Draw planes side by side under their names, or I(X; T) over epochs where there are no labels; at once."""
    pictures.save(_figure(reports), path)


def _figure(reports: dict[str, dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(reports), 4.4), layout="constrained")
    panels = figure.subplots(1, len(reports), squeeze=False, sharey=True)[0]
    for axes, (name, report) in zip(panels, reports.items(), strict=True):
        _panel(axes, report, name)
    return figure


def _panel(axes: Any, report: dict[str, Any], name: str) -> None:
    from matplotlib import colormaps

    marks = "osD^vPX*<>"
    shades = colormaps["viridis"]
    epochs = report["epochs"]
    labelled = "I_TY" in report["points"][0]
    for index, layer in enumerate(report["layers"]):
        own = [point for point in report["points"] if point["layer"] == layer]
        across = [point["I_XT"]["value"] if labelled else epochs.index(point["epoch"]) for point in own]
        up = [point["I_TY"]["value"] if labelled else point["I_XT"]["value"] for point in own]
        axes.plot(across, up, color="0.75", linewidth=0.8, zorder=1)
        shade = [0.95 - 0.95 * epochs.index(point["epoch"]) / max(len(epochs) - 1, 1) for point in own]
        axes.scatter(
            across, up, c=shade, cmap=shades, vmin=0, vmax=1, marker=marks[index % len(marks)], s=22,
            edgecolors="0.2", linewidths=0.4, zorder=2, label=f"layer {layer}",
        )  # fmt: skip
    units = report["units"]
    if labelled:
        cap = report["baseline"]["label_entropy"]
        axes.axhline(cap, color="0.5", linestyle=":", linewidth=1)
        axes.annotate("H(Y)", (axes.get_xlim()[0], cap), fontsize=8, color="0.4", va="bottom")
        axes.set_ylabel(f"I(T; Y), {units}")
    else:
        axes.set_ylabel(f"I(X; T), {units}")
        axes.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs])
    axes.set_xlabel(f"I(X; T), {units}" if labelled else "epoch")
    axes.axvline(
        report["baseline"]["log_rows"], color="0.5", linestyle=":", linewidth=1
    ) if labelled else None
    noise = "" if report["estimator"] == "binning" else f", noise {report['sigma']:.3g} {report['noise']}"
    title = f"epochs {epochs[0]} (light) to {epochs[-1]} (dark); {report['estimator']}{noise}; dotted: caps"
    axes.set_title(f"{name}: {title}" if name else title, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
