"""What a reader of a fit should be warned of: runs off the law, runs it hangs on, parameters the runs do not fix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bntools.tools.scale_fit.fit import Fit, polish
from bntools.tools.scale_fit.laws import Array
from bntools.tools.scale_fit.trust import noise
from bntools.tools.scale_fit.trust.determined import determined, few, growing, predictable

HANGING = 0.5
"""Leverage from which on half of a run's own noise goes into its fitted value."""
_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """A warning: a stable name, a sentence, the lines of the runs it is about, and what else a program may want."""

    name: str
    text: str
    lines: list[int] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "text": self.text,
            **({"lines": self.lines} if self.lines else {}),
            **self.more,
        }


def warnings(fit: Fit, predictions: list[dict[str, float]] | None = None) -> list[Finding]:
    """All that applies, the gravest first. predictions: points at which the law is to be used."""
    findings = [
        _outliers(fit),
        _leverage(fit),
        _starts(fit),
        _collinear(fit),
        _open(fit),
        _few(fit),
        _growing(fit),
    ]
    findings += [*_flat(fit), _floor(fit), _unpredictable(fit, predictions or [])]
    findings += [_beyond(fit, point) for point in predictions or []]
    return [warning for warning in findings if warning is not None]


def scores(fit: Fit) -> Array:
    """Residuals over the robust scale of the other runs, [runs]."""
    return noise.scores(fit.residuals()[None], fit.theta.size)[0]


def outliers(fit: Fit) -> Array:
    """Indices of runs off the law by more than the largest score of clean runs, the farthest first."""
    score = np.abs(scores(fit))
    if not (score > noise.OUTLYING).any():
        return np.empty(0, int)
    which = np.flatnonzero(score > noise.threshold(fit.problem, fit.theta, fit.settings.seed))
    return which[np.argsort(-score[which], kind="stable")]


def leverage(fit: Fit) -> Array:
    """Diagonal of J (J^T J)^-1 J^T, 0 to 1, [runs]: the pull of a run on its own fitted value in least squares."""
    jacobian = fit.jacobian()
    scale = np.linalg.norm(jacobian, axis=0)
    basis, singular, _ = np.linalg.svd(jacobian / np.where(scale > 0, scale, 1), full_matrices=False)
    return (basis[:, singular > 1e-10 * singular[0]] ** 2).sum(1)


def _lines(fit: Fit, which: Array) -> list[int]:
    return [fit.runs.lines[index] for index in which]


def _named(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN])) + (
        f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    )
    return f"line{'s' if len(lines) > 1 else ''} {shown}"


def _without(fit: Fit, which: Array) -> dict[str, float]:
    """Parameters of the fit without some runs."""
    weights = np.ones((1, fit.problem.y.size))
    weights[0, which] = 0
    theta = polish(fit.problem, fit.theta[None], weights).theta
    return {name: float(value[0]) for name, value in fit.coefficients(theta).items()}


def _effect(fit: Fit, without: dict[str, float]) -> str:
    """How the exponents move, in words."""
    now = fit.coefficients(fit.theta[None])
    moves = [f"{n} {now[n][0]:.3g} to {without[n]:.3g}" for n in ("alpha", "beta", "E") if n in without]
    return ", ".join(moves)


def _outliers(fit: Fit) -> Finding | None:
    score = np.abs(scores(fit))
    which = outliers(fit)
    if not len(which):
        return None
    lines = _lines(fit, which)
    more = {"scores": [float(score[index]) for index in which]}
    text = f"{_named(lines)}: {score[which[0]]:.1f} robust standard deviations off the law at most"
    if fit.problem.y.size - len(which) > len(fit.theta):
        without = _without(fit, which)
        more["parameters_without"] = without
        text += f"; without {'them' if len(lines) > 1 else 'it'}: {_effect(fit, without)}"
    return Finding("outlier", text, lines, more)


def _leverage(fit: Fit) -> Finding | None:
    pull = leverage(fit)
    which = np.flatnonzero(pull > max(HANGING, 3 * len(fit.theta) / pull.size))
    if not len(which):
        return None
    which = which[np.argsort(-pull[which], kind="stable")]
    lines = _lines(fit, which)
    text = f"the fit hangs on {_named(lines)}: leverage {pull[which[0]]:.2f} of 1 at most"
    return Finding("leverage", text, lines, {"leverage": [float(pull[index]) for index in which]})


def _starts(fit: Fit) -> Finding | None:
    if fit.reached * 2 >= fit.tried:
        return None
    text = f"only {fit.reached} of {fit.tried} starts ended at the best objective: there are other minima"
    return Finding("local-minima", text)


def _collinear(fit: Fit) -> Finding | None:
    if not fit.law.joint:
        return None
    together = float(np.corrcoef(fit.problem.x)[0, 1])
    if abs(together) < 0.98:
        return None
    text = f"N and D vary together (correlation of logs {together:.4f}): their terms cannot be told apart"
    return Finding("collinear", text, more={"correlation": together})


def _open(fit: Fit) -> Finding | None:
    """Parameters that are null."""
    known = determined(fit)
    names = [name for name in fit.law.parameters if name in known.undetermined]
    if not names:
        return None
    sizes = {name: len(np.unique(fit.runs.values[name])) for name in fit.variables}
    why = "N and D vary as one" if known.ray else ", ".join(f"{n} distinct {v}" for v, n in sizes.items())
    what = ", and so is what follows from them" if fit.law.joint else ""
    text = f"the runs ({why}) do not determine {', '.join(names)}: null{what}; add sizes further apart"
    return Finding("not-identified", text, more={"parameters": names})


def _few(fit: Fit) -> Finding | None:
    if not few(fit):
        return None
    count, parameters = len(fit.runs.loss), len(fit.theta)
    text = f"{count} runs for {parameters} parameters: too few to know the noise, so there are no intervals"
    return Finding("few-runs", text)


def _growing(fit: Fit) -> Finding | None:
    names = growing(fit)
    if not names or determined(fit).ray:
        return None
    what = "; no division of a budget is the best" if fit.law.joint else ""
    text = f"the fitted loss does not fall with {' and '.join(names)}{what}"
    return Finding("growing", text, more={"variables": names})


def _unpredictable(fit: Fit, points: list[dict[str, float]]) -> Finding | None:
    known = determined(fit)
    open_ = [point for point in points if not predictable(fit, known, point)]
    if not open_:
        return None
    where = "; ".join(", ".join(f"{name} {point[name]:.3g}" for name in fit.variables) for point in open_)
    return Finding("not-predictable", f"the runs do not determine the loss at {where}")


def _flat(fit: Fit) -> list[Finding]:
    """Parameters that the replicates spread over a factor, or over both signs."""
    findings = []
    if len(fit.samples) < 20:
        return findings
    tail, open_ = 50 * (1 - fit.settings.level), determined(fit).undetermined
    for name, values in fit.coefficients(fit.samples).items():
        if name in open_ or few(fit):
            continue
        low, high = np.percentile(values, [tail, 100 - tail])
        if name in ("A", "B") and not high <= 10 * low:
            partner = "alpha" if name == "A" else "beta"
            text = (
                f"{name} is anything from {low:.3g} to {high:.3g}: it trades off with {partner} along a flat valley; "
                "compare objectives and predictions, not coefficients"
            )
            findings.append(Finding("flat", text, more={"parameter": name}))
        if name in ("alpha", "beta") and (low <= 0.01 or high >= 5):
            text = f"{name} is not fixed by these runs ({low:.3g} to {high:.3g}): add sizes further apart"
            findings.append(Finding("undetermined", text, more={"parameter": name}))
    return findings


def _floor(fit: Fit) -> Finding | None:
    if not fit.law.irreducible or "E" in determined(fit).undetermined:
        return None
    smallest = float(fit.runs.loss.min())
    value = float(fit.coefficients(fit.theta[None])["E"][0])
    if value < 0.01 * smallest:
        return Finding(
            "no-floor", f"E is as good as 0 (smallest loss {smallest:.3g}): the runs show no irreducible loss"
        )
    rest = float(np.exp(fit.problem.y.min())) / value - 1
    if rest > 1:
        text = f"the best run is still {1 + rest:.1f} times E: the irreducible loss is an extrapolation"
        return Finding("far-floor", text)
    return None


def _beyond(fit: Fit, point: dict[str, float]) -> Finding | None:
    """A use of the law at over ten times the largest, or under a tenth of the smallest, of a variable."""
    for name in fit.variables:
        seen = fit.runs.values[name]
        factor = max(point[name] / seen.max(), seen.min() / point[name])
        if factor > 10:
            text = f"{name} = {point[name]:.3g} is a factor {factor:.0f} outside the runs: there the law is a guess"
            return Finding("extrapolation", text, more={"variable": name, "factor": float(factor)})
    return None
