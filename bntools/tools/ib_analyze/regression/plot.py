"""The sweep as a picture: error against compression, and error under attack."""

from __future__ import annotations

from typing import Any

_STYLES = {
    "mse": ("black", "s"),
    "vib": ("0.6", "^"),
    "nib": ("0.6", "v"),
    "hsic": ("0.6", "D"),
    "cs-ib": ("C0", "o"),
}


def figure(report: dict[str, Any]) -> Any:
    """Left a line a method over its weights, right the least-error network of each method against the attack."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(8.4, 3.8), layout="constrained")
    left, right = result.subplots(1, 2)
    for method, (shade, mark) in _STYLES.items():
        own = [run for run in report["runs"] if run["method"] == method]
        style = {"color": shade, "marker": mark, "markersize": 5, "linewidth": 1, "label": method}
        left.errorbar(
            [run["compression"] for run in own], [run["rmse"]["mean"] for run in own],
            [run["rmse"]["se"] for run in own], elinewidth=0.5, **style,
        )  # fmt: skip
        best = min(own, key=lambda run: run["validation_rmse"])
        right.plot([e["epsilon"] for e in best["fgsm"]], [e["mean"] for e in best["fgsm"]], **style)
    for axes in (left, right):
        axes.axhline(report["baseline"]["mean_rmse"], color="0.5", linestyle=":", linewidth=1)
        axes.set_ylabel(f"RMSE of {report['target']}, test rows")
    place = left.get_xlim()[0], report["baseline"]["mean_rmse"]
    left.annotate("mean alone", place, fontsize=8, color="0.4", va="bottom")
    left.set_xlabel("compression: 1 - I(x; t) / that of mse")
    right.set_xlabel("FGSM epsilon, standard deviations")
    right.legend(frameon=False, fontsize=8)
    return result
