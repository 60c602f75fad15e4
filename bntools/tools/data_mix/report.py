"""From runs to a report: fit, decide, compare, and what to run next."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.report.values import Interval
from bntools.tools.data_mix.choose.decide import Answer, Question, best_pilot, decide, sign
from bntools.tools.data_mix.choose.following import Proposal, next_runs
from bntools.tools.data_mix.choose.simplex import Limits
from bntools.tools.data_mix.laws import fitted as joint
from bntools.tools.data_mix.laws.fitted import Fitted, Inputs, Sampling, leave_out
from bntools.tools.data_mix.laws.projektor import Distance
from bntools.tools.data_mix.runs.runs import Runs
from bntools.tools.data_mix.settings import Settings
from bntools.tools.data_mix.warn import warnings_of

Floats = NDArray[np.floating[Any]]

_CURVE = 9


class Known(NamedTuple):
    """What sources tell beside the runs: their sizes [m], and the distance of mixtures to the validation data."""

    sizes: Floats | None = None
    distance: Distance | None = None
    inputs: Inputs = joint.no_inputs


def mix_report(runs: Runs, settings: Settings, known: Known = Known()) -> dict[str, Any]:
    """The report of a table of runs. Raises BnError (exit 3) where the runs cannot answer.

    >>> from bntools.tools.data_mix import Settings, from_records
    >>> error = lambda p, n: 0.1 + 0.3 * (p - 0.4) ** 2 + 2 / n ** 0.5
    >>> lines = [{"weights": {"web": p, "code": 1 - p}, "n": n, "metric": error(p, n), "kind": "error"}
    ...          for p in (0, 0.2, 0.5, 0.8, 1) for n in (100, 200, 400)]
    >>> report = mix_report(from_records(enumerate(lines, 1)), Settings(at=1600))
    >>> 0.25 < report["proposed"]["mixture"]["web"] < 0.55
    True
    """
    fitted, question = fitted_and_question(runs, settings, known)
    answer, own = _answered(fitted, question, settings, known)
    left = leave_out(fitted)
    report = {
        "kind": "data-mix", "method": settings.methods[0], "metric": runs.kind, "at": _size(answer.n[answer.chosen]),
        "sources": list(runs.sources),
        "runs": {"count": len(runs), "sizes": runs.sizes.tolist(), "hash": runs.digest(), "failed": list(runs.failed)},
        "decision": answer.decision, **_outcome(fitted, answer, settings),
        "curve": _curve(fitted, answer, settings), "leave_out": _leave_out(runs, left),
        **_settings_of(fitted), "baselines": _baselines(fitted, answer, settings),
        "methods": _methods(fitted, question, known, settings, left) if settings.compare else {},
        "next": [_proposal(runs, p) for p in _following(fitted, question, answer, settings)],
    }  # fmt: skip
    if own is not None:
        report["predicted"] = {"value": 1 - own if runs.kind == "accuracy" else own, "low": None, "high": None}
    report["warnings"] = warnings_of(runs, report, known.sizes)
    return _rounded(report)


def fitted_and_question(runs: Runs, settings: Settings, known: Known) -> tuple[Fitted, Question]:
    """The joint law, and what is asked of it. Raises BnError (exit 3)."""
    limits = _limits(runs, settings)
    n = settings.at if settings.at is not None or settings.budget is not None else float(runs.n.max())
    _check(runs, settings, n)
    question = Question(n, limits, known.sizes, settings.level, settings.confidence, settings.seed)
    return joint.fit(runs, known.inputs, slope=settings.slope, sampling=Sampling(seed=settings.seed)), question


def _answered(
    fitted: Fitted, question: Question, settings: Settings, known: Known
) -> tuple[Answer, float | None]:
    """The answer by the first method, and what that predicts if it is a published one: those have no intervals."""
    if settings.methods[0] == "joint":
        return decide(fitted, question), None
    from bntools.tools.data_mix.compare import published

    question.limits.check(question.n)
    return published(settings.methods[0], fitted, question, known.distance)


def _limits(runs: Runs, settings: Settings) -> Limits:
    for option, values in (("--max", settings.caps), ("--prices", settings.prices)):
        for name in values:
            if name not in runs.sources:
                raise bad_input(f"{option} names {name}, which is no source", f"sources: {', '.join(runs.sources)}")
    upper = np.array([settings.caps.get(name, 1.0) for name in runs.sources])
    price = np.array([settings.prices.get(name, 1.0) for name in runs.sources])
    if (price <= 0).any() or (upper < 0).any() or (upper > 1).any():
        raise bad_input("prices are above 0, and caps from 0 to 1", "--max web=0.3")
    return Limits(upper, price, settings.budget)


def _check(runs: Runs, settings: Settings, n: float | None) -> None:
    """Refuse fewer runs than anything can be told from, and another size by runs of one."""
    mixtures = len(np.unique(np.round(runs.weights, 9), axis=0))
    wanted = len(runs.sources) + 1
    if mixtures < wanted:
        raise bad_input(
            f"{mixtures} mixtures of {len(runs.sources)} sources, and the law has {wanted} parameters at least",
            f"add runs of {wanted - mixtures} other mixtures",
        )
    if len(runs.sizes) == 1 and settings.slope is None and n != runs.n.max():
        raise bad_input(
            f"all runs are of size {_size(runs.n.max())}: they tell nothing of another size",
            "add runs of a second size, or assume an exponent: --slope 0.3",
        )


def _outcome(fitted: Fitted, answer: Answer, settings: Settings) -> dict[str, Any]:
    """The mixture recommended, the one proposed by the law, what they promise, and how sure that is."""
    runs, drawn, row = fitted.runs, answer.draws, answer.chosen
    s = sign(runs.kind)
    names = ["best_pilot", *answer.rivals]
    gains = {
        f"over_{name}": _interval(s * (drawn[:, i + 1] - drawn[:, row]), settings.level)
        for i, name in enumerate(names)
    }
    better = s * drawn[:, 0] <= (s * drawn[:, 1:]).min(1)
    noisy = fitted.noisy(drawn, answer.n, settings.seed)
    mixtures = (answer.best, answer.pilot)
    proposed = {
        "mixture": _named(runs, answer.best), "predicted": _shown(runs, noisy[:, 0], settings.level),
        "gain_over_best_pilot": _interval(s * (drawn[:, 1] - drawn[:, 0]), settings.level),
        "probability_better": float((s * (drawn[:, 1] - drawn[:, 0]) > 0).mean()),
    }  # fmt: skip
    return {
        "mixture": _named(runs, mixtures[row]), "predicted": _shown(runs, noisy[:, row], settings.level),
        "gain": gains, "probability_best": float(better.mean()), "proposed": proposed,
    }  # fmt: skip


def _curve(fitted: Fitted, answer: Answer, settings: Settings) -> list[dict[str, Any]]:
    """The metric of the recommended mixture from the smallest pilot to the target."""
    runs, target = fitted.runs, float(answer.n[answer.chosen])
    ends = (runs.n.min(), max(target, runs.n.max()))
    if len(runs.sizes) == 1 and settings.slope is None:
        ends = (target, target)
    n = np.unique(np.append(np.geomspace(*ends, _CURVE), target))
    points = np.tile((answer.best, answer.pilot)[answer.chosen], (len(n), 1))
    drawn = fitted.noisy(fitted.sample(points, n, settings.seed), n, settings.seed)
    return [{"n": float(size), **_shown(runs, drawn[:, i], settings.level)} for i, size in enumerate(n)]


def _leave_out(runs: Runs, left: Floats) -> dict[str, Any]:
    """How well each mixture's runs are predicted by those of other mixtures."""
    miss = np.abs(left - runs.lower)
    spread = float(((runs.lower - runs.lower.mean()) ** 2).sum())
    by_size = [{"n": float(size), "mae": float(miss[runs.n == size].mean())} for size in runs.sizes]
    return {"mae": float(miss.mean()), "r2": 1 - float((miss**2).sum()) / max(spread, 1e-300), "by_size": by_size}


def _settings_of(fitted: Fitted) -> dict[str, Any]:
    """Floor and exponent at the largest pilot, as quantiles of the draws from their posterior."""
    draws = fitted.draws
    m = len(fitted.runs.sources)
    centre = np.full((2, m), 1 / m)
    step = 0.05
    z = fitted.law.predict(draws, centre, np.array([-step, step]), fitted.inputs(centre))[0]
    slope = -(z[:, 1] - z[:, 0]) / (2 * step)
    return {"floor": _interval(draws.floor, 0.9), "slope": _interval(slope, 0.9), "widened": fitted.scale}


def _baselines(fitted: Fitted, answer: Answer, settings: Settings) -> dict[str, Any]:
    runs = fitted.runs
    noisy = fitted.noisy(answer.draws, answer.n, settings.seed)
    mixtures = {"best_pilot": answer.pilot, **answer.rivals}
    result: dict[str, Any] = {
        name: {"mixture": _named(runs, p), "predicted": _shown(runs, noisy[:, i + 1], settings.level)}
        for i, (name, p) in enumerate(mixtures.items())
    }
    largest = runs.at(runs.n == runs.n.max())
    same = np.abs(largest.weights - best_pilot(runs)).max(1) < 1e-9
    result["best_pilot"]["measured"] = float(largest.metric[same].mean())
    result["best_pilot"]["n"] = float(runs.n.max())
    return result


def _methods(fitted: Fitted, question: Question, known: Known, settings: Settings, left: Floats) -> dict[str, Any]:
    from bntools.tools.data_mix.compare import methods_of

    answer = decide(fitted, question)
    return methods_of(fitted, question, answer, names=settings.methods, distance=known.distance, left=left)


def _following(fitted: Fitted, question: Question, answer: Answer, settings: Settings) -> list[Proposal]:
    if not settings.following:
        return []
    return next_runs(fitted, question, answer.best, settings.following, least=settings.least_gain)


def _proposal(runs: Runs, proposal: Proposal) -> dict[str, Any]:
    return {
        "weights": _named(runs, proposal.weights), "n": _size(proposal.n), "expected_gain": proposal.gain,
        "cost": proposal.cost,
    }  # fmt: skip


def _named(runs: Runs, p: Floats) -> dict[str, float]:
    return {name: float(w) for name, w in zip(runs.sources, p, strict=True)}


def _size(n: Any) -> float | int:
    return int(n) if float(n).is_integer() else float(n)


def _interval(values: Floats, level: float) -> Interval:
    low, middle, high = np.quantile(values, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return {"value": float(middle), "low": float(low), "high": float(high)}


def _shown(runs: Runs, values: Floats, level: float) -> Interval:
    """An interval in the metric of the user."""
    return _interval(1 - values if runs.kind == "accuracy" else values, level)


def _rounded(value: Any) -> Any:
    """Six significant digits, mixtures but for the last bits exact: the same report however sums were ordered."""
    if isinstance(value, dict):
        return {
            key: _exact(inner) if key in ("mixture", "weights") else _rounded(inner) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _exact(mixture: dict[str, float]) -> dict[str, float]:
    """Weights to six decimals that add up to 1 still."""
    names = list(mixture)
    rounded = {name: round(w, 6) for name, w in mixture.items()}
    largest = max(names, key=lambda name: rounded[name])
    rounded[largest] = round(1 - sum(w for name, w in rounded.items() if name != largest), 6)
    return rounded
