"""The scores as a picture: p-values in order, against those of nothing and of plain correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def figure(report: dict[str, Any], p: NDArray[np.float64], linear: NDArray[np.float64]) -> Any:
    """-log10 of the ordered p-values of all columns against their expectation where no column says anything."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = result.subplots()
    for values, color, marker, label in (
        (linear, "0.6", ".", "Pearson"),
        (p, "black", "o", report["method"]),
    ):
        known = np.sort(values[~np.isnan(values)])
        if not len(known):
            continue
        expected = (np.arange(1, len(known) + 1) - 0.5) / len(known)
        shown = np.unique(np.geomspace(1, len(known), 2000).astype(int)) - 1  # a million points say no more
        axes.plot(-np.log10(expected[shown]), -np.log10(np.maximum(known[shown], 1e-300)), marker, color=color,
                  markersize=4, linestyle="none", label=label)  # fmt: skip
    ends = [0, float(np.log10(2 * max(len(p), 1)))]
    axes.plot(ends, ends, color="0.3", linewidth=1, linestyle="--", label="nothing to find")
    axes.set_xlabel("expected -log10 p")
    axes.set_ylabel("-log10 p")
    count = (
        "no p-values"
        if report["selected"] is None
        else f"{report['selected']:,} selected at {report['fdr']:g}"
    )
    axes.set_title(
        f"{report['columns']['scored']:,} columns against {report['target']}: {count}", fontsize=10
    )
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return result
