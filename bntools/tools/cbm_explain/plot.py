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
    elif report.get("maps"):
        figure.clear()
        _maps(figure, report["maps"][:6])
    else:
        bars = _bars(report)[::-1]
        colors = ["tab:blue" if value >= 0 else "tab:orange" for _, value in bars]
        axes.barh([name for name, _ in bars], [value for _, value in bars], color=colors)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel(_label(report))
    pictures.save(figure, path)


def _label(report: dict[str, Any]) -> str:
    predicted = report.get("predicted")
    return {
        "cbm-explanation": f"contribution to the logit of {predicted}",
        "motif-explanation": f"contribution to the logit of {predicted}",
        "ecbm-explanation": f"probability of the concept if {predicted} (%)",
        "ecbm-global": "probability of the concept in its class (%)",
    }.get(report["kind"], "share of contributions (%)")


def _maps(figure: Any, maps: list[dict[str, Any]]) -> None:
    """Each concept over the patches, light where it is seen."""
    columns = min(3, len(maps))
    panels = figure.subplots(-(-len(maps) // columns), columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, entry in zip(panels, maps, strict=False):
        axes.imshow(entry["map"], cmap="gray")
        axes.set_title(entry["concept"], fontsize=8)


def _bars(report: dict[str, Any]) -> list[tuple[str, float]]:
    if report["kind"] == "ecbm-explanation":
        return [(c["concept"], 100 * c["given_class"]) for c in report["concepts"]]
    if report["kind"] == "ecbm-global":
        return [(f"{c['class']}: {c['concepts'][0]['concept']}", 100 * c["concepts"][0]["probability"])
                for c in report["classes"] if c["concepts"]]  # fmt: skip
    if report["kind"] in ("cbm-explanation", "motif-explanation"):
        return [(c["concept"], c["contribution"]) for c in report["contributions"]]
    return [
        (f"{c['class']}: {c['concepts'][0]['concept']}", 100 * c["concepts"][0]["share"])
        for c in report["classes"] if c["concepts"]
    ]  # fmt: skip
