"""A picture of a fit: the runs and the law above, what the law leaves over below. Readable in grey."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.report import pictures
from bntools.tools.scale_fit.diagnose import outliers
from bntools.tools.scale_fit.fit import Fit
from bntools.tools.scale_fit.laws import Array, evaluate

UNITS = {"N": "N (parameters)", "D": "D (tokens, examples)", "C": "C (FLOPs)"}
_CURVES = 5
_LABELLED = 6
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def draw(fit: Fit, path: str, force: bool = False) -> None:
    """Draw to .svg, .png or .pdf; same fit, same bytes. force: replace a picture that exists."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(7.2, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        _law(upper, fit)
        _left_over(lower, fit)
        lower.set_xlabel(UNITS[fit.variables[-1]])
        pictures.save(figure, path, force)


def _law(axes: Any, fit: Fit) -> None:
    """Loss against the last variable: runs, curves of the law, and E as the line it falls towards."""
    across = fit.runs.values[fit.variables[-1]]
    fine = np.geomspace(across.min(), across.max(), 200)
    axes.set(xscale="log", yscale="log", ylabel="loss", title=_title(fit))
    if fit.law.joint:
        _levels(axes, fit, fine)
    else:
        axes.plot(
            across, fit.runs.loss, "o", ms=4.5, mfc="0.75", mec="black", mew=0.7, label="runs", zorder=3
        )
        if len(fit.samples):
            low, high = _band(fit, fine)
            axes.fill_between(
                fine, low, high, color="0.85", lw=0, label=f"{100 * fit.settings.level:g} % of the law"
            )
        axes.plot(fine, _curve(fit, fit.theta[None], [fine])[0], "-", color="black", lw=1.2, label="law")
    if fit.law.irreducible:
        floor = float(fit.coefficients(fit.theta[None])["E"][0])
        if floor > 0.5 * fit.runs.loss.min():
            axes.axhline(floor, color="0.5", lw=0.7)
            place = (0.005, floor)
            axes.annotate(
                f"E = {floor:.3g}", place, xycoords=("axes fraction", "data"), va="bottom", fontsize=8
            )
    axes.legend(frameon=False, fontsize=8, loc="best")
    _plain_ticks(axes)


def _title(fit: Fit) -> str:
    values = fit.coefficients(fit.theta[None])
    numbers = ", ".join(
        f"{name} = {values[name][0]:.3g}" for name in ("E", "A", "B", "alpha", "beta") if name in values
    )
    formula = fit.law.formula.replace("x", fit.variables[0]) if not fit.law.joint else fit.law.formula
    return f"L = {formula}\n{numbers}"


def _levels(axes: Any, fit: Fit, fine: Array) -> None:
    """Runs shaded by N, and the law at a few values of N that the runs take, darker for larger N."""
    sizes = fit.runs.values["N"]
    low, high = np.log(sizes.min()), np.log(sizes.max())

    def grey(size: Array) -> Array:
        return 0.85 * (1 - (np.log(size) - low) / (high - low))

    axes.scatter(
        fit.runs.values["D"], fit.runs.loss, c=grey(sizes), cmap="gray", vmin=0, vmax=1, s=16, edgecolors="0.3",
        linewidths=0.4, zorder=3,
    )  # fmt: skip
    shown = np.quantile(np.unique(sizes), np.linspace(0, 1, _CURVES), method="nearest")
    for size, style in zip(np.unique(shown), _STYLES, strict=False):
        curve = _curve(fit, fit.theta[None], [np.full_like(fine, size), fine])[0]
        axes.plot(fine, curve, ls=style, color=str(0.8 * grey(size)), lw=1.2, label=f"N = {size:.3g}")


def _curve(fit: Fit, theta: Array, values: list[Array]) -> Array:
    x = np.log(np.stack(values)) - fit.center[:, None]
    return np.exp(evaluate(fit.law, theta, x).log_loss)


def _band(fit: Fit, fine: Array) -> tuple[Array, Array]:
    tail = 50 * (1 - fit.settings.level)
    low, high = np.percentile(_curve(fit, fit.samples, [fine]), [tail, 100 - tail], axis=0)
    return low, high


def _left_over(axes: Any, fit: Fit) -> None:
    """Residuals in per cent of the loss; outliers ringed and named by their line."""
    across, residual = fit.runs.values[fit.variables[-1]], 100 * fit.residuals()
    far = outliers(fit)
    axes.axhline(0, color="black", lw=0.8)
    axes.plot(across, residual, "o", ms=3.5, mfc="0.75", mec="black", mew=0.6)
    axes.plot(
        across[far],
        residual[far],
        "o",
        ms=9,
        mfc="none",
        mec="black",
        mew=1,
        label="outlier",
    )
    named = far[:_LABELLED]
    for rank, index in enumerate(named[np.argsort(across[named])]):
        left = across[index] > across.min() ** 0.2 * across.max() ** 0.8  # no room at the right edge
        place = (-7 if left else 7, 9 * (rank % 3) - 9)
        axes.annotate(
            f"line {fit.runs.lines[index]}", (across[index], residual[index]), xytext=place,
            textcoords="offset points", va="center", ha="right" if left else "left", fontsize=7,
        )  # fmt: skip
    axes.set(xscale="log", ylabel="run − law (% of loss)")
    if len(far):
        axes.legend(frameon=False, fontsize=8, loc="best")


def _plain_ticks(axes: Any) -> None:
    """Losses as 2.5, not 2.5 x 10^0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1, 1.5, 2, 2.5, 3, 4, 5, 7) if high / low < 10 else (1, 2, 5))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
