"""A fit as the JSON report that bntools-scale-fit(1) documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bntools.tools.scale_fit import allocate, regime
from bntools.tools.scale_fit.diagnose import warnings
from bntools.tools.scale_fit.fit import Fit, fit_scaling_law, interval, resampling
from bntools.tools.scale_fit.regime import Dimension
from bntools.tools.scale_fit.spectrum import Spectrum
from bntools.tools.scale_fit.trust.determined import determined


def fit_report(
    fit: Fit,
    *,
    compute: list[float] | None = None,
    points: list[dict[str, float]] | None = None,
    data: Dimension | None = None,
    kernel: Spectrum | None = None,
) -> dict[str, Any]:
    """Everything about a fit as plain values.

    compute: budgets in FLOPs to divide. points: variables by name to predict the loss at. data: the data's dimension.
    """
    values = parameters(fit)
    allocations = [allocate.allocation(fit, budget) for budget in compute or []]
    uses = [
        *(points or []),
        *({"N": a["N"]["value"], "D": a["D"]["value"]} for a in allocations if a["N"]["value"]),
    ]
    result: dict[str, Any] = {
        "kind": "scale-fit",
        "law": fit.law.name,
        "formula": fit.law.formula,
        "variables": list(fit.variables),
        "runs": len(fit.runs.loss),
        "parameters": values,
        "objective": fit.objective,
        "delta": fit.settings.delta,
        "residual_rms": rms(fit),
        "baseline": baseline(fit),
        "starts": {"tried": fit.tried, "reached": fit.reached},
        "bootstrap": {
            "replicates": len(fit.samples),
            "resample": resampling(fit.settings, len(fit.runs.loss) - len(fit.theta)),
            "level": fit.settings.level,
        },
        "regime": regimes(fit, values, data),
        "warnings": [warning.as_json() for warning in warnings(fit, uses)],
    }
    if fit.law.joint:
        result["compute_optimal"] = {**allocate.exponents(fit), "allocations": allocations}
    if points:
        result["predictions"] = [allocate.prediction(fit, point) for point in points]
    if kernel is not None:
        result["kernel"] = kernel.as_json()
    return result


def parameters(fit: Fit) -> dict[str, Any]:
    """{value, low, high} of each parameter, E first; None throughout where the runs leave it open."""
    undetermined = determined(fit).undetermined
    values, samples = fit.coefficients(fit.theta[None]), fit.coefficients(fit.samples)
    intervals = {
        name: interval(fit, float(values[name][0]), samples[name])
        for name in ("E", "A", "B", "alpha", "beta")
        if name in values
    }
    if fit.law.name == "kaplan":
        for name, factor, exponent in (("N_c", "A", "alpha"), ("D_c", "B", "beta")):
            with np.errstate(all="ignore"):
                value = values[factor] ** (1 / values[exponent])
                intervals[name] = interval(fit, float(value[0]), samples[factor] ** (1 / samples[exponent]))
            if factor in undetermined:
                intervals[name] = allocate.nothing()
    return intervals | {name: allocate.nothing() for name in undetermined}


def rms(fit: Fit) -> float:
    """Root mean square of the log residuals."""
    return float(np.sqrt(np.mean(fit.residuals() ** 2)))


def baseline(fit: Fit) -> dict[str, Any] | None:
    """The simpler law a sceptic would try: of compute alone, or of one variable without E; None where there is none."""
    if fit.law.joint:
        settings = replace(fit.settings, law="power", x="C", irreducible=True, bootstrap=0)
    elif fit.law.irreducible:
        settings = replace(fit.settings, law="power", x=fit.variables[0], irreducible=False, bootstrap=0)
    else:
        return None
    if settings.x not in fit.runs.varying():
        return None
    simple = fit_scaling_law(fit.runs, settings)
    formula = simple.law.formula.replace("x", simple.variables[0])
    return {"formula": formula, "objective": simple.objective, "residual_rms": rms(simple)}


def regimes(fit: Fit, values: dict[str, Any], data: Dimension | None) -> dict[str, Any]:
    """A label for each exponent of N or D, and one for all; the theory says nothing of an exponent of C."""
    names = {"N": "alpha", "D": "beta" if fit.law.joint else "alpha"}
    by_name = {names[v]: regime.classify(values[names[v]], data) for v in fit.variables if v in names}
    label = regime.overall([each["label"] for each in by_name.values()]) if by_name else regime.OPEN
    known = {"data_dimension": data.__dict__.copy()} if data is not None else {}
    return {"label": label, **by_name, **known}
