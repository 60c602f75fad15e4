"""The random effects of one term as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.tools.mixed_fit.data import MixedData
from bntools.tools.mixed_fit.fit import Fits
from bntools.tools.mixed_fit.settings import Settings

_NAMED = 30  # groups whose names can be read


def figure(data: MixedData, fits: Fits, settings: Settings) -> Any:
    """Modes of each effect by group in ascending order of the first, those of the Gaussian model in grey."""
    from matplotlib.figure import Figure

    term, modes, normal = data.terms[0], fits.asked.effects[0], fits.gaussian.effects[0]
    order = np.argsort(modes[:, 0], kind="stable")
    count = modes.shape[1]
    result = Figure(
        figsize=(3.2 + 2.6 * count, max(3.2, min(len(order), _NAMED) * 0.2 + 1.2)), layout="constrained"
    )
    panels = result.subplots(1, count, sharey=True, squeeze=False)[0]
    places = np.arange(len(order))
    for i, axes in enumerate(panels):
        axes.axvline(0, color="0.6", linewidth=1)
        if settings.tails != "gauss":
            axes.plot(normal[order, i], places, "o", color="0.7", markersize=4, label="Gaussian")
        axes.plot(
            modes[order, i],
            places,
            "o",
            color="black",
            markersize=4,
            label={"q": "q-Gaussian", "row": "t errors"}.get(settings.tails, "Gaussian"),
        )
        axes.set_xlabel(f"{term.names[i]}, deviation from the mean")
    if len(order) <= _NAMED:
        panels[0].set_yticks(places, [term.levels[j] for j in order])
    else:
        panels[0].set_yticks([])
    panels[0].set_ylabel(term.group)
    panels[0].legend(frameon=False, fontsize=9)
    return result
