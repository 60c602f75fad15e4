"""Pictures: one row's contributions, a class's strongest concepts, or accuracy against corrected concepts."""

from __future__ import annotations

from typing import Any

from bntools.core.report import pictures


def draw(report: dict[str, Any], path: str) -> None:
    """Write a report as a picture: .svg, .png or .pdf by the name of the file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    if report["kind"] == "cbm-intervention":
        for name, color in (("random", "0.6"), ("curve", "tab:blue")):
            points = report[name]
            label = report["policy"] if name == "curve" else "random questions"
            x, y = [p["corrected"] for p in points], [100 * p["accuracy"]["value"] for p in points]
            if name == "curve" or report["policy"] != "random":
                axes.plot(x, y, "o-", color=color, label=label)
        axes.axhline(100 * report["all_concepts"]["value"], color="0.3", linestyle=":", label="all corrected")
        axes.set_xlabel("concepts corrected in each row")
        axes.set_ylabel("accuracy (%)")
        axes.legend(frameon=False)
    else:
        bars = _bars(report)[::-1]
        colors = ["tab:blue" if value >= 0 else "tab:orange" for _, value in bars]
        axes.barh([name for name, _ in bars], [value for _, value in bars], color=colors)
        axes.axvline(0, color="0.3", linewidth=0.8)
        local = report["kind"] == "cbm-explanation"
        axes.set_xlabel(
            f"contribution to the logit of {report['predicted']}" if local else "share of contributions (%)"
        )
    pictures.save(figure, path)


def _bars(report: dict[str, Any]) -> list[tuple[str, float]]:
    if report["kind"] == "cbm-explanation":
        return [(c["concept"], c["contribution"]) for c in report["contributions"]]
    return [
        (f"{c['class']}: {c['concepts'][0]['concept']}", 100 * c["concepts"][0]["share"])
        for c in report["classes"] if c["concepts"]
    ]  # fmt: skip
