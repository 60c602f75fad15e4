"""Pictures of a fit: sorted relevance with the cut, error against axes kept, reconstructions; and grids of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.report import pictures

if TYPE_CHECKING:
    from bntools.tools.ard_fit.run import Fit

_STRIP = 10
_TIGHT = {"wspace": 0.05, "hspace": 0.05, "left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.99}


def draw_fit(fit: Fit, path: str) -> None:
    """Replaces the file at once."""
    from matplotlib.figure import Figure

    report = fit.report
    image = is_image(fit.model.shape)
    figure = Figure(figsize=(8.0, 5.2 if image else 3.4), layout="constrained")
    top, *below = figure.subfigures(2, 1, height_ratios=(3, 2)) if image else [figure.subfigures(1, 1)]
    left, right = top.subplots(1, 2)
    _relevance(left, report)
    _errors(right, report)
    if below:
        _strip(below[0], fit)
    pictures.save(figure, path)


def _relevance(axes: Any, report: dict[str, Any]) -> None:
    scores = [max(axis["ablation"], 0.0) for axis in report["axes"]]
    total = sum(scores) or 1.0
    at = np.arange(1, len(scores) + 1)
    kept = report["n_relevant"]["value"]
    axes.bar(at, [score / total for score in scores], color=["0.25" if i <= kept else "0.8" for i in at])
    axes.axvline(kept + 0.5, color="black", linestyle="--", label=f"{kept} axes kept")
    paper = report["by_criterion"]["paper"]
    axes.axvline(paper + 0.5, color="0.5", linestyle=":", label=f"the paper's rule: {paper}")
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 1)
    axes.set_xlabel("axis, by relevance")
    axes.set_ylabel("error added without it (share)")
    axes.legend(frameon=False, fontsize=8)


def _errors(axes: Any, report: dict[str, Any]) -> None:
    at = [point["axes"] for point in report["curve"]]
    axes.plot(
        at, [point["error"] for point in report["curve"]], color="black", marker=".", label=report["method"]
    )
    linear = report["linear"]["error"]
    axes.axhline(linear["pruned"]["mean"], color="0.6", label=f"linear, {report['linear']['count']} axes")
    if "vae" in report:
        axes.axhline(report["vae"]["error"]["pruned"]["mean"], color="0.6", linestyle=":",
                     label=f"plain VAE, {report['vae']['count']} axes")  # fmt: skip
    axes.axvline(report["n_relevant"]["value"], color="black", linestyle="--")
    axes.set_yscale("log")
    axes.set_xlabel("axes kept")
    axes.set_ylabel("held-out squared error a row")
    axes.legend(frameon=False, fontsize=8)


def _strip(figure: Any, fit: Fit) -> None:
    """Held-out images, all axes, and the kept ones, one above the other."""
    import torch

    model, x = fit.model, fit.held_out[:_STRIP].reshape(-1, *fit.model.net.arch.shape)
    with torch.no_grad():
        full = model.restore(model.net.decode(model.net.encode(x)[0]))
        kept = model.decode(model.net.encode(x)[0][:, model.axes])
    rows = [images_of(part) for part in (model.restore(x), full, kept)]
    panels = figure.subplots(3, _STRIP, squeeze=False)
    for line, (name, row) in enumerate(
        zip(("held out", "all axes", f"{model.relevant} axes"), rows, strict=True)
    ):
        for panel in panels[line]:
            panel.axis("off")
        for panel, image in zip(panels[line], row, strict=False):
            panel.imshow(image, cmap="gray", vmin=0, vmax=1)
        panels[line][0].set_title(name, fontsize=8, loc="left")


def draw_samples(samples: Tensor, path: str) -> None:
    """A square grid of images, or a scatter of the first two columns. Replaces the file at once."""
    from matplotlib.figure import Figure

    if not is_image(tuple(samples.shape[1:])):
        if samples[0].numel() < 2:
            raise bad_input("samples of one number draw no picture", "-o FILE writes them")
        figure = Figure(figsize=(4.2, 4.2), layout="constrained")
        axes = figure.subplots()
        flat = samples.flatten(1)
        axes.scatter(flat[:, 0], flat[:, 1], s=4, color="0.2")
        axes.set_xlabel("column 0")
        axes.set_ylabel("column 1")
        return pictures.save(figure, path)
    images = images_of(samples)
    side = math.ceil(math.sqrt(len(images)))
    lines = math.ceil(len(images) / side)
    figure = Figure(figsize=(min(0.6 * side, 12), min(0.6 * lines, 12)))
    panels = figure.subplots(lines, side, squeeze=False, gridspec_kw=_TIGHT)
    for panel in panels.flat:
        panel.axis("off")
    for panel, image in zip(panels.flat, images, strict=False):
        panel.imshow(image, cmap="gray", vmin=0, vmax=1)
    return pictures.save(figure, path)


def is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and min(shape[-2:]) >= 4 and (len(shape) == 2 or shape[0] in (1, 3))


def images_of(x: Tensor) -> list[NDArray[np.float32]]:
    """[h, w] or [h, w, 3] in [0, 1]; values outside are cut, other ranges are stretched to it."""
    array = x.numpy()
    low, high = np.quantile(array, (0.01, 0.99))
    if low < -0.25 or high > 1.25:
        array = (array - low) / max(float(high - low), 1e-12)
    array = array.clip(0, 1)
    if array.ndim == 3:
        return list(array)
    return [image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0) for image in array]
