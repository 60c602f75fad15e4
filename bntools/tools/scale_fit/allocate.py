"""What a law says beyond the runs: the best model and data size for a compute budget, the loss at a point."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.tools.scale_fit.fit import Fit, interval
from bntools.tools.scale_fit.laws import Array
from bntools.tools.scale_fit.runs import FLOPS
from bntools.tools.scale_fit.trust.determined import determined, dividable, predictable

_QUANTILES = 500


def nothing() -> dict[str, float | None]:
    """What the runs do not determine."""
    return {"value": None, "low": None, "high": None}


def exponents(fit: Fit) -> dict[str, Any]:
    """N grows as C^(beta / (alpha + beta)), D as the rest (Hoffmann et al., arXiv 2203.15556, eq. 4)."""

    if not dividable(fit, determined(fit)):
        return {"N_exponent": nothing(), "D_exponent": nothing()}

    def share(theta: Array) -> Array:
        alpha, beta = theta[:, 1], theta[:, 3]
        with np.errstate(all="ignore"):
            return beta / (alpha + beta)

    value, samples = float(share(fit.theta[None])[0]), share(fit.samples)
    return {"N_exponent": interval(fit, value, samples), "D_exponent": interval(fit, 1 - value, 1 - samples)}


def optimum(fit: Fit, theta: Array, compute: float) -> Array:
    """log N [batch] of least loss under 6 N D = compute FLOPs, for theta [batch, parameters].

    There the power terms p = a - alpha ln N and q = b - beta ln D satisfy p - q = s ln(beta / alpha), with s = 1 for
    the sum and s = beta for `kaplan`, whose terms are raised to 1 / beta before they are added.
    """
    a, alpha, b, beta = theta[:, :4].T
    softness = beta if fit.law.name == "kaplan" else 1.0
    budget = np.log(compute / FLOPS)
    center_n, center_d = fit.center
    with np.errstate(all="ignore"):
        whole = a + alpha * center_n - b - beta * center_d + beta * budget - softness * np.log(beta / alpha)
        return whole / (alpha + beta)


def allocation(fit: Fit, compute: float) -> dict[str, Any]:
    """N, D, tokens a parameter and loss at the optimum of a budget in FLOPs, each with its interval."""

    if not dividable(fit, determined(fit)):
        return {"C": compute, **{name: nothing() for name in ("N", "D", "tokens_per_parameter", "loss")}}

    def at(theta: Array) -> dict[str, Array]:
        log_n = optimum(fit, theta, compute)
        with np.errstate(all="ignore"):
            n = np.exp(log_n)
            d = compute / FLOPS / n
            return {"N": n, "D": d, "tokens_per_parameter": d / n}

    value, samples = at(fit.theta[None]), at(fit.samples)
    sizes = {name: interval(fit, float(value[name][0]), samples[name]) for name in value}
    n, d = float(value["N"][0]), float(value["D"][0])
    loss = nothing()
    if 0 < n < np.inf and 0 < d < np.inf:
        loss = prediction(fit, {"N": n, "D": d})["loss"]
    return {"C": compute, **sizes, "loss": loss}


def prediction(fit: Fit, values: dict[str, float]) -> dict[str, Any]:
    """The law's loss at one point with its interval, and the interval of a new run there.

    A new run scatters about the law as the fitted runs do: every replicate is taken with every residual, of more than
    500 runs with that many quantiles of them. Residuals count for sqrt(n / (n - p)): the law has followed some noise.
    """
    point = {name: values[name] for name in ("N", "D", "C") if name in values}
    if not predictable(fit, determined(fit), values):
        return {**point, "loss": nothing(), "run": {"low": None, "high": None}}
    value, samples = float(fit.predict(values)[0]), fit.predict(values, fit.samples)
    count = fit.problem.y.size
    spread = np.sort(fit.residuals()) * np.sqrt(count / (count - fit.theta.size))
    if spread.size > _QUANTILES:
        spread = np.quantile(spread, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    bounds = interval(fit, value, np.outer(samples, np.exp(spread)).ravel())
    return {
        **point,
        "loss": interval(fit, value, samples),
        "run": {"low": bounds["low"], "high": bounds["high"]},
    }
