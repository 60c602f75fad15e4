"""Accuracy against cost as a picture."""

from __future__ import annotations

from typing import Any

from bntools.core.report import pictures


def draw(report: dict[str, Any], path: str, force: bool = True) -> None:
    """Draw every choice, the frontier, and the frontier that compute alone would choose, priced in full."""
    pictures.save(_figure(report), path, force)


def _figure(report: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    models = sorted({(choice["parameters"], choice["model"]) for choice in report["choices"]})
    for index, (_, model) in enumerate(models):
        for limit in sorted({c["limit"] or 0 for c in report["choices"] if c["model"] == model}):
            mine = [c for c in report["choices"] if c["model"] == model and (c["limit"] or 0) == limit]
            shade = str(0.75 - 0.6 * index / max(1, len(models) - 1))
            axes.plot([c["etflops"] for c in mine], [100 * c["accuracy"]["value"] for c in mine], color=shade,
                      marker="o^svDP*"[index % 7], markersize=4, linewidth=0.8, label=None if limit > 0 and
                      mine[0]["limit"] != _first_limit(report, model) else model)  # fmt: skip
    front = report["frontier"]
    accuracy = [c["accuracy"] for c in front]
    axes.step([c["etflops"] for c in front], [100 * a["value"] for a in accuracy], where="post", color="black",
              linewidth=2, label="frontier")  # fmt: skip
    axes.fill_between([c["etflops"] for c in front], [100 * a["low"] for a in accuracy],
                      [100 * a["high"] for a in accuracy], step="post", color="0.9", label="its 95 %")  # fmt: skip
    chosen = [_priced(report, choice) for choice in report["compute_only"]["frontier"]]
    axes.plot([c["etflops"] for c in chosen], [100 * c["accuracy"]["value"] for c in chosen], "x", color="0.4",
              markersize=9, label="what compute alone would choose")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("cost of a query (equivalent TFLOPs)")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _first_limit(report: dict[str, Any], model: str) -> int | None:
    return next(choice["limit"] for choice in report["choices"] if choice["model"] == model)


def _priced(report: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    """The same choice at its full price."""
    keys = ("model", "limit", "trials")
    return next(c for c in report["choices"] if all(c[key] == choice[key] for key in keys))
