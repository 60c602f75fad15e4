"""The report of a mixed fit."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from bntools.tools.mixed_fit.data import MixedData, Term
from bntools.tools.mixed_fit.fit import Fits, Fitted
from bntools.tools.mixed_fit.intervals import SpreadInterval
from bntools.tools.mixed_fit.settings import Settings

KIND = "mixed-fit"
_SHOWN = 50  # outliers, and groups of which effects are listed without --effects
_FLAT = 1e-3  # a standard deviation below this share of the error's is zero


def report(data: MixedData, settings: Settings, fits: Fits, *, effects: bool) -> dict[str, Any]:
    """Kind, law, fixed effects with intervals, standard deviations, outliers, and the fits without either."""
    fit = fits.asked
    parameters = len(fit.beta) + sum(len(t) * (len(t) + 1) // 2 for t in fit.triangles) + 1
    parameters += settings.tails != "gauss" and settings.nu is None
    result: dict[str, Any] = {
        "kind": KIND,
        "target": settings.target,
        "tails": settings.tails,
        "method": "REML" if settings.reml else "variational" if settings.tails == "row" else "ML",
        "rows": len(data.y),
        "rows_missing": data.missing,
        "deviance": _six(fit.deviance, 10),
        "aic": _six(None if fit.deviance is None or settings.reml else fit.deviance + 2 * parameters, 10),
        "fixed": _fixed(data.names, fit, settings.level),
        "random": [_random(term, fit, i) for i, term in enumerate(data.terms)],
        "error": _spread(fit.sigma, None if fit.spreads is None else fit.spreads[-1], 0),
        "singular": any(_is_singular(t) for t in fit.triangles),
    }
    if settings.tails != "gauss":
        result["nu"] = _nu(data, settings, fit)
        result["outliers"] = _outliers(data, settings, fit)
        result["iterations"] = fit.iterations
    if effects:
        result["effects"] = [_effects(data, term, fit, i) for i, term in enumerate(data.terms)]
    result["baseline"] = _baseline(data, settings, fits)
    return result


def _fixed(names: list[str], fit: Fitted, level: float) -> list[dict[str, Any]]:
    z = NormalDist().inv_cdf((1 + level) / 2)
    errors = np.sqrt(np.diag(fit.covariance))
    return [
        {"name": name, "value": _six(b, 9), "low": _six(b - z * e), "high": _six(b + z * e), "se": _six(e)}
        for name, b, e in zip(names, fit.beta.tolist(), errors.tolist(), strict=True)
    ]


def _random(term: Term, fit: Fitted, index: int) -> dict[str, Any]:
    """Standard deviations and correlations of a term's effects; whether its variance has collapsed."""
    triangle = fit.triangles[index]
    norms = np.linalg.norm(triangle, axis=1)
    interval = None if fit.spreads is None else fit.spreads[index]
    unit = triangle / np.maximum(norms, 1e-300)[:, None]
    correlation = [
        [_six(float(unit[i] @ unit[j])) if min(norms[i], norms[j]) > _FLAT else None for j in range(i)]
        for i in range(len(unit))
    ]
    return {
        "group": term.group,
        "groups": len(term.levels),
        "effects": [
            {"name": name, "sd": _spread(fit.sigma * norms[i], interval, i)}
            for i, name in enumerate(term.names)
        ],
        "correlation": correlation,
        "singular": _is_singular(triangle),
    }


def _spread(value: float, interval: SpreadInterval | None, index: int) -> dict[str, Any]:
    low = None if interval is None else interval.low[index]
    high = None if interval is None else interval.high[index]
    return {"value": _six(value), "low": _six(low), "high": _six(high)}


def _is_singular(triangle: np.ndarray) -> bool:
    return bool(np.linalg.svd(triangle, compute_uv=False)[-1] < _FLAT)


def _nu(data: MixedData, settings: Settings, fit: Fitted) -> dict[str, Any]:
    """Degrees of freedom; for groups also q of a group of median size, and the profile."""
    nu, profile = fit.nu or 0.0, fit.profile
    result: dict[str, Any] = {
        "value": _six(nu), "low": _six(None if profile is None else profile.low),
        "high": _six(None if profile is None else profile.high), "fixed": settings.nu is not None,
    }  # fmt: skip
    if settings.tails == "q":
        m = float(np.median(np.bincount(data.terms[0].codes)))
        low = 1.0 if result["high"] is None and profile is not None else _q(result["high"], m)
        result["q"] = {"value": _q(nu, m), "low": low, "high": _q(result["low"], m)}
        result["rows_of_q"] = m
    if profile is not None:
        result["profile"] = [
            {"nu": _six(nu), "deviance": _six(d, 8)}
            for nu, d in zip(profile.nu, profile.deviance, strict=True)
        ]
    return result


def _q(nu: float | None, rows: float) -> float | None:
    """The q of a group of so many rows."""
    return None if nu is None else _six(1 + 2 / (nu + rows))


def _outliers(data: MixedData, settings: Settings, fit: Fitted) -> list[dict[str, Any]]:
    """Groups or rows with the smallest weights. Groups: whose distance the Gaussian law gives a chance below .05 in
    all of them; rows: whose weight is below a third."""
    assert fit.weights is not None
    order = np.argsort(fit.weights, kind="stable")
    if settings.tails == "row":
        chosen = [i for i in order.tolist() if fit.weights[i] < 1 / 3]
        return [
            {
                "row": int(data.rows[i]),
                "weight": _six(fit.weights[i]),
                "groups": {t.group: t.levels[t.codes[i]] for t in data.terms},
            }
            for i in chosen[:_SHOWN]
        ]
    from scipy.stats import chi2

    assert fit.distances is not None
    term, sizes = data.terms[0], np.bincount(data.terms[0].codes)
    p = chi2.sf(fit.distances, sizes)
    return [
        {"group": term.levels[i], "weight": _six(fit.weights[i]), "rows": int(sizes[i]), "p_gaussian":
        _six(float(p[i]))} for i in order.tolist() if p[i] < 0.05 / len(sizes)
    ][:_SHOWN]  # fmt: skip


def _effects(data: MixedData, term: Term, fit: Fitted, index: int) -> dict[str, Any]:
    """Conditional modes of a term's effects by group, with the weights of the groups where the law has them."""
    modes = fit.effects[index]
    weights = fit.weights if fit.weights is not None and len(fit.weights) == len(modes) else None
    groups = {}
    for level, row in zip(term.levels, range(len(modes)), strict=True):
        groups[level] = dict(zip(term.names, (_six(v) for v in modes[row].tolist()), strict=True))
        if weights is not None:
            groups[level]["weight"] = _six(weights[row])
    return {"group": term.group, "groups": groups}


def _baseline(data: MixedData, settings: Settings, fits: Fits) -> dict[str, Any]:
    """Least squares without random effects, and with heavy tails the Gaussian mixed model."""
    values = zip(
        data.names, fits.plain.beta.tolist(), np.sqrt(np.diag(fits.plain.covariance)).tolist(), strict=True
    )
    result: dict[str, Any] = {
        "least_squares": {
            "deviance": _six(fits.plain.deviance, 10), "fixed": [{"name": n, "value": _six(b), "se": _six(e)} for n,
            b, e in values], }
    }  # fmt: skip
    if settings.tails != "gauss":
        fixed = _fixed(data.names, fits.gaussian, settings.level)
        result["gaussian"] = {"deviance": _six(fits.gaussian.deviance, 10), "fixed": fixed}
    return result


def _six(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
