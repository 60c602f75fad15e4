"""The report of a fit: the count by every rule, what pruning costs, restarts, and what a sceptic would ask for."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bntools.core.report.values import four_digits
from bntools.tools.ard_fit import linear
from bntools.tools.ard_fit.data import LARGEST_COVARIANCE, Data
from bntools.tools.ard_fit.decide import criteria
from bntools.tools.ard_fit.settings import Settings

if TYPE_CHECKING:
    from bntools.tools.ard_fit.run import Candidate

_SHOWN_CURVE = 129


def assemble(
    data: Data, settings: Settings, spectrum: linear.Spectrum, *, best: Candidate, candidates: list[Candidate],
    plain: Candidate | None, straight: Candidate,
) -> dict[str, Any]:  # fmt: skip
    """Everything REPORT of bntools-ard-fit(1) lists."""
    unit = data.scale**2
    counts = [one.cut.count for one in candidates if one.name == best.name] or [best.cut.count]
    trained = best.trained
    report: dict[str, Any] = {
        "kind": "ard-fit",
        "method": best.name,
        "arch": trained.net.arch.kind,
        "paper": settings.paper,
        "max_dim": trained.net.arch.dim,
        "n_relevant": {"value": best.cut.count, "low": min(counts), "high": max(counts)},
        "restarts": {"counts": counts, "median": median(counts)},
        "edge": best.cut.edge,
        "converged": trained.converged if best.name != "linear" else True,
        **_scores(best, settings, unit),
        "linear": _linear(spectrum, settings, straight, unit, data.rows),
        "axes": _axes(best, unit),
        "curve": _curve(best, unit),
        "trajectory": [check._asdict() for check in trained.checks],
        "input": {
            "rows": data.total, "held_out": len(data.held_out), "shape": list(data.source.shape),
            "constant": data.constant, "bad": data.bad, "bytes": data.source.bytes, "batch": settings.batch_size(),
            "in_memory": data.memory is not None,
        },
        "steps": trained.steps,
    }  # fmt: skip
    if candidates:
        network = min(candidates, key=lambda one: float(one.nats.mean()))
        report["network"] = {
            "method": network.name, "arch": network.trained.net.arch.kind, "converged": network.trained.converged,
            "counts": [one.cut.count for one in candidates], **_scores(network, settings, unit),
        }  # fmt: skip
    if plain is not None:
        report["vae"] = _scores(plain, settings, unit) | {"converged": plain.trained.converged}
    report["warnings"] = _warnings(report, data, settings)
    return report


def _scores(one: Candidate, settings: Settings, unit: float) -> dict[str, Any]:
    """The numbers by which models are compared; errors are sums over a row, in squared units of the data."""
    errors, nats = one.curve.errors, one.nats
    pruned, full = errors[one.cut.count], errors[-1]
    excess = pruned / full.mean() - full / full.mean()
    return {
        "count": one.cut.count,
        "by_criterion": criteria(one.relevance, one.curve, one.cut, one.trained.variance, settings.explained),
        "sigma2": four_digits(one.trained.variance * unit),
        "error": {
            "full": _mean_error(full * unit), "reference": _mean_error(errors[one.cut.reference] * unit),
            "pruned": _mean_error(pruned * unit), "none": _mean_error(errors[0] * unit),
            "cost": _mean_error(excess),
        },
        "nats": _mean_error(nats),
    }  # fmt: skip


def _mean_error(values: Any) -> dict[str, float]:
    return {
        "mean": four_digits(float(values.mean())),
        "se": four_digits(float(values.std()) / len(values) ** 0.5),
    }


def _linear(
    spectrum: linear.Spectrum, settings: Settings, straight: Candidate, unit: float, rows: int
) -> dict[str, Any]:
    bayesian = linear.bayesian(spectrum.values, len(spectrum.vectors), spectrum.rows, len(spectrum.vectors))
    return {
        "pca": linear.explained_count(spectrum.values, settings.explained),
        "minka": linear.minka(spectrum.values, spectrum.rows),
        "bpca": bayesian.count,
        "rows": spectrum.rows,
        **_scores(straight, settings, unit),
    }


def _axes(best: Candidate, unit: float) -> list[dict[str, float]]:
    """Scores of the axes, best first."""
    relevance = best.relevance
    return [
        {
            "axis": axis, "ablation": four_digits(float(relevance.ablation[axis]) * unit),
            "kl": four_digits(float(relevance.kl[axis])), "snr": four_digits(float(relevance.snr[axis])),
            "jacobian": four_digits(float(relevance.jacobian[axis]) * unit),
            "variance": four_digits(float(relevance.moment[axis])),
        }
        for axis in best.order.tolist()
    ]  # fmt: skip


def _curve(best: Candidate, unit: float) -> list[dict[str, float]]:
    """Held-out error and nats by the number of axes kept."""
    errors, nats = best.curve.errors.mean(1) * unit, best.curve.nats.mean(1)
    return [
        {"axes": k, "error": four_digits(float(errors[k])), "nats": four_digits(float(nats[k]))}
        for k in range(min(len(errors), _SHOWN_CURVE))
    ]


def _warnings(report: dict[str, Any], data: Data, settings: Settings) -> list[dict[str, str]]:
    """Objects of a stable `name` and a `text`."""
    width = len(data.mean) - data.constant
    batch = settings.batch_size()
    rules = [
        ("edge", report["edge"] and report["max_dim"] < width,
         f"{report['n_relevant']['value']} of {report['max_dim']} axes are kept, which may be what limits them: "
         f"try --max-dim {min(2 * report['max_dim'], width)}"),
        ("not-converged", not report["converged"], "the count or the bound still moved: more --epochs"),
        ("few-rows", data.rows < width, f"{data.rows:,} rows for {width:,} columns"),
        ("batch", batch > data.rows, f"a batch of {batch} is larger than the {data.rows} rows: all are one batch"),
        ("bytes", data.source.bytes, "whole numbers from 0 to 255 were divided by 255"),
        ("bad-rows", data.bad > 0, f"{data.bad:,} rows with NaN or infinity left out"),
        ("sampled-spectrum", width > LARGEST_COVARIANCE, f"principal components of {len(data.held_out):,} rows"),
        ("restarts", report["n_relevant"]["high"] - report["n_relevant"]["low"] > 2,
         f"restarts give {report['n_relevant']['low']} to {report['n_relevant']['high']}"),
        ("linear", report["method"] == "linear" and settings.arch == "auto",
         "a linear model does as well on held-out rows, and its count is reported; --arch mlp overrules that"),
    ]  # fmt: skip
    return [{"name": name, "text": text} for name, wrong, text in rules if wrong]
