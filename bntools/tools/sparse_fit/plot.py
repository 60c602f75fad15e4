"""The path as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.tools.sparse_fit.design import Design
from bntools.tools.sparse_fit.fit import Fit

_LABELLED = 8


def figure(report: dict[str, Any], design: Design, fits: dict[str, Fit]) -> Any:
    """Standardised coefficients against lambda above, held-out loss of the penalty and of the lasso below."""
    from matplotlib.figure import Figure

    fit = fits[report["penalty"]]
    result = Figure(figsize=(6.4, 6.0), layout="constrained")
    above, below = result.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    lambdas, coefficients = fit.path.lambdas, fit.path.coefficients
    chosen = [entry["name"] for entry in report["selected"]]
    for j in np.flatnonzero((coefficients != 0).any(0)).tolist():
        above.plot(
            lambdas, coefficients[:, j], color="black" if design.names[j] in chosen else "0.75", linewidth=1
        )
    largest = max((abs(entry["standardised"]) for entry in report["selected"]), default=1.0)
    above.set_ylim(-1.6 * largest, 1.6 * largest)  # the dense end of a path would hide the rest
    _label(above, report["selected"][:_LABELLED], report["lambda"], 3.2 * largest)
    above.set_ylabel("standardised coefficient")
    for name, style in (("lasso", {"color": "0.6"}), (report["penalty"], {"color": "black"})):
        validation = fits[name].validation
        below.errorbar(
            lambdas, validation.mean, validation.se, label=name, linewidth=1, elinewidth=0.5, **style
        )
    below.axhline(report["null_loss"], color="0.3", linestyle="--", linewidth=1, label="mean alone")
    top = 1.1 * max(report["null_loss"], float(fits["lasso"].validation.mean.max()))
    below.set_ylim(min(0.0, float(fit.validation.mean.min())), top)
    for axes in (above, below):
        axes.axvline(report["lambda"], color="0.3", linestyle=":", linewidth=1)
    below.set_xscale("log")
    below.invert_xaxis()
    below.set_xlabel("lambda (dotted: chosen)")
    below.set_ylabel("held-out loss")
    below.legend(frameon=False, fontsize=9)
    above.set_title(
        f"{report['penalty']}: {len(chosen)} of {report['columns']:,} columns chosen by {report['choose']}, "
        f"lasso {report['baseline']['columns']}", fontsize=10,
    )  # fmt: skip
    return result


def _label(axes: Any, entries: list[dict[str, Any]], at: float, height: float) -> None:
    """Names beside the chosen step, moved apart where their coefficients are alike."""
    place = -np.inf
    for entry in sorted(entries, key=lambda entry: entry["standardised"]):
        place = max(entry["standardised"], place + 0.055 * height)
        axes.annotate(
            entry["name"], (at, place), xytext=(5, 0), textcoords="offset points", fontsize=8, va="center"
        )
