"""A map of cosines as a picture."""

from __future__ import annotations

from typing import Any

from bntools.core.report import pictures


def draw(maps: Any, name: str, path: str) -> None:
    """One query's cosine at every pixel, the largest marked."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(maps, cmap="gray")
    y, x = np.unravel_index(int(maps.argmax()), maps.shape)
    axes.plot(x, y, "+", color="tab:orange", ms=12, label=f"largest, {maps.max():.2f}")
    figure.colorbar(image, ax=axes, label="cosine with the query")
    axes.set_title(f"query: {name}"[:60], fontsize=10)
    axes.set_xlabel("x (pixels)")
    axes.set_ylabel("y (pixels)")
    axes.legend(fontsize=8)
    pictures.save(figure, path)
