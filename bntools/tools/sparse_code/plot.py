"""A picture of training: FVU of the batches, with the scores at the end and the baseline."""

from __future__ import annotations

from typing import Any

from bntools.core.report import pictures


def draw(reports: list[dict[str, Any]], path: str) -> None:
    """FVU against step, one line a dictionary; dashed what pursuit reaches on rows held out, grey what PCA does."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for index, report in enumerate(reports):
        curve = report["train"]["curve"]
        line = axes.plot(
            [p["step"] for p in curve], [p["fvu"] for p in curve], label=f"k = {report['k']}, batches"
        )
        for name, style in (("encoder", ":"), ("pursuit", "--")):
            if name in report:
                axes.axhline(
                    report[name]["fvu"]["value"], color=line[0].get_color(), ls=style, lw=1,
                    label=f"k = {report['k']}, {name}, held out",
                )  # fmt: skip
        if index == 0 and "baseline" in report:
            pca = report["baseline"]["pca"]
            axes.axhline(pca["fvu"], color="0.5", lw=1, label=f"{pca['components']} principal components")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("fraction of variance unexplained")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    pictures.save(figure, path)
