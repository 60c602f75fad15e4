"""How much two variables tell of each other: an estimator chosen by what they are, and how far to trust its figure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage
from bntools.core.information import copula, intervals
from bntools.core.information.corrected import Corrected, corrected
from bntools.core.information.critic import FOLDS, Critique, critique
from bntools.core.information.estimators import DEFAULT, ESTIMATORS, Estimation, linear, queries, standardized
from bntools.core.information.reference_entropy import reference_information
from bntools.core.information.variables import Variable, look_at
from bntools.kernels.information import histogram
from bntools.kernels.information.nearest_neighbour import kraskov, labelled_terms, mixed_terms
from bntools.kernels.information.neighbour_counts import Side

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Rows = NDArray[Any]

NEAR_CAP, DISAGREE = 0.8, 0.2


class Chosen(NamedTuple):
    """What was estimated and how: value, the reason, the same estimate on some rows, its other errors, all values.

    votes: names of `estimators` that nothing speaks against; slack: error of the correction; doubt: what neighbours
    see beyond the value, sure or not; fewest: rows that `again` needs; drifts: whether the bias may still depend on
    the number of rows; error: standard error over folds, where it is not to be had from `again`.
    """

    value: float
    estimator: str
    why: str
    again: Callable[[Rows], float]
    estimators: dict[str, float]
    votes: tuple[str, ...]
    slack: float = 0.0
    doubt: float = 0.0
    fewest: int = 0
    drifts: bool = False
    flags: tuple[str, ...] = ()
    error: float | None = None


def mutual_information(
    x: NDArray[Any],
    y: NDArray[Any],
    settings: Estimation = DEFAULT,
    *,
    labels: bool | None = None,
    failing: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Mutual information of the rows of x [N, ...] and y [N, ...]: value, low, high, cap, flags, estimators.

    labels: whether y is classes (None: by its values). failing: estimators that lost their vote, by a self-test.
    Raises BnError (exit 3) for rows that do not match, are not finite, or are fewer than 50.

    >>> r = np.random.default_rng(0)
    >>> x = r.standard_normal(2000)
    >>> found = mutual_information(x, 0.8 * x + 0.6 * r.standard_normal(2000))
    >>> found["estimator"], abs(found["value"] - 0.511) < 0.06
    ('t-copula', True)
    """
    if len(x) != len(y):
        raise bad_input(f"x has {len(x)} rows, y has {len(y)}", "row i of both must be one observation")
    first, second = look_at(x, "x"), look_at(y, "y", labels)
    rng = np.random.default_rng(settings.seed)
    cap = math.log(len(x))
    for side in (first, second):
        if side.codes is not None:
            cap = min(cap, histogram.entropy(np.bincount(side.codes), corrected=False))
    if 0 in (first.points.shape[1], second.points.shape[1]):
        return _report(_constant(), settings, cap, rng, (first, second))
    if settings.estimator == "auto":
        chosen = _automatic(first, second, settings, rng)
    else:
        chosen = _named(first, second, settings, rng)
    votes = tuple(name for name in chosen.votes if name not in failing)
    return _report(chosen._replace(votes=votes), settings, cap, rng, (first, second))


def _automatic(x: Variable, y: Variable, settings: Estimation, rng: np.random.Generator) -> Chosen:
    if x.codes is not None and y.codes is None:
        return _automatic(y, x, settings, rng)
    if settings.critic and (x.codes is not None or y.codes is not None):
        raise usage("--critic is for two sides of numbers", "leave it out, or --no-labels")
    if x.codes is not None and y.codes is not None:
        return _discrete(x.codes, y.codes)
    if y.codes is not None:
        return _labelled(x, y.codes, settings.k)
    if max(x.repeated, y.repeated) > 0.05:
        return _mixed(x, y, settings.k)
    return _continuous(*_narrow(x, y), settings, rng)


def _discrete(x: Indices, y: Indices) -> Chosen:
    def again(rows: Rows) -> float:
        return histogram.discrete_information(x[rows], y[rows])

    both = {
        "miller-madow": histogram.discrete_information(x, y),
        "plug-in": histogram.discrete_information(x, y, corrected=False),
    }
    return Chosen(both["miller-madow"], "miller-madow", "both are discrete", again, both, tuple(both))


def _labelled(x: Variable, labels: Indices, k: int) -> Chosen:
    """Ross where x is continuous; classes of one row have no neighbour and no term."""
    points = standardized(x.points)

    def again(rows: Rows) -> float:
        return float(labelled_terms(points[rows], labels[rows], k)[0].mean())

    whole = {"ross": again(np.arange(len(labels)))}
    singles = (np.bincount(labels) == 1).sum()
    flags = ("single_member_classes",) if singles else ()
    why = "y is classes, x is numbers"
    if x.repeated > 0.05:
        codes = histogram.codes(points, 10, "quantile")
        whole["binning"] = histogram.discrete_information(codes, labels)
    return Chosen(whole["ross"], "ross", why, again, whole, ("ross",), drifts=True, flags=flags)


def _mixed(x: Variable, y: Variable, k: int) -> Chosen:
    first, second = standardized(x.points), standardized(y.points)

    def again(rows: Rows) -> float:
        return float(mixed_terms(Side.of(first[rows]), Side.of(second[rows]), k)[0].mean())

    whole = {"mixed": again(np.arange(len(first)))}
    share = max(x.repeated, y.repeated)
    return Chosen(whole["mixed"], "mixed", f"{share:.0%} of the rows of a side repeat", again, whole,
                  ("mixed",), drifts=True)  # fmt: skip


def _continuous(x: Variable, y: Variable, settings: Estimation, rng: np.random.Generator) -> Chosen:
    estimate = corrected(x.points, y.points, k=settings.k, rng=rng)
    width = x.points.shape[1] + y.points.shape[1]
    if settings.critic and len(x.points) < 20 * FOLDS:
        raise bad_input(f"--critic needs {20 * FOLDS} rows", "leave it out")
    cheap = {
        "ksg": kraskov(
            standardized(x.points), standardized(y.points), settings.k, queries(len(x.points), width, rng)
        ),
        "gaussian": linear(x.points, y.points),
        "t-copula": estimate.model.information,
        "corrected": estimate.debiased,
        "reference": reference_information(x.points, y.points),
    }
    flat = "manifold" in x.flags + y.flags
    votes = (
        ["corrected"] + ["t-copula"] * estimate.accepted + ["reference"] * (not flat) + ["ksg"] * (width <= 4)
    )
    if estimate.accepted:
        why = (
            f"neighbours see {estimate.residual:+.3f} nats beyond a {_named_model(estimate)}: not significant"
        )
    else:
        why = f"neighbours see {estimate.residual:+.3f} nats beyond a {_named_model(estimate)}"
    name, again = "t-copula" if estimate.accepted else "corrected", _again(x, y, estimate, settings.k)
    chosen = Chosen(
        estimate.value, name, why, again, cheap,
        tuple(votes), slack=estimate.error, doubt=estimate.debiased - estimate.value, fewest=5 * width,
        drifts=not estimate.accepted, flags=x.flags + y.flags,
    )  # fmt: skip
    return _criticised(chosen, critique(x.points, y.points, settings.seed)) if settings.critic else chosen


def _criticised(chosen: Chosen, critic: Critique) -> Chosen:
    """A bound from below on rows not trained on can only raise the figure, where it is surely above it."""
    estimators = {**chosen.estimators, "critic": critic.value}
    if critic.value - 2 * critic.error <= chosen.value:
        why = f"{chosen.why}; a critic on held-out rows does not see more ({critic.value:.3f})"
        return chosen._replace(estimators=estimators, why=why)
    why = f"a critic sees {critic.value - chosen.value:.3f} nats more, on held-out rows: a bound from below"
    return chosen._replace(
        value=critic.value, estimator="critic", why=why, estimators=estimators,
        votes=(*chosen.votes, "critic"), slack=0.0, doubt=max(0.0, chosen.value + chosen.doubt - critic.value),
        drifts=False, error=critic.error,
    )  # fmt: skip


def _again(x: Variable, y: Variable, estimate: Corrected, k: int) -> Callable[[Rows], float]:
    """The estimate on some rows: a refit of the model, or Kraskov's in the coordinates of all rows."""
    if estimate.accepted:
        fit = (
            copula.fit
            if math.isfinite(estimate.model.freedom)
            else functools.partial(copula.refit, model=estimate.model)
        )
        return lambda rows: fit(x.points[rows], y.points[rows]).information
    first, second = estimate.parts
    return lambda rows: kraskov(first[rows], second[rows], k)


def _named_model(estimate: Corrected) -> str:
    freedom = estimate.model.freedom
    return "normal copula" if math.isinf(freedom) else f"t copula of {freedom:.1f} degrees of freedom"


def _named(x: Variable, y: Variable, settings: Estimation, rng: np.random.Generator) -> Chosen:
    """One estimator by name, on all rows and on some."""
    function = ESTIMATORS[settings.estimator]

    def again(rows: Rows) -> float:
        return function(x.at(rows), y.at(rows), settings, np.random.default_rng(settings.seed))

    value = again(np.arange(len(x.points)))
    return Chosen(value, settings.estimator, "asked for", again, {settings.estimator: value},
                  (settings.estimator,), drifts=True)  # fmt: skip


def _constant() -> Chosen:
    return Chosen(0.0, "none", "a side is constant", lambda rows: 0.0, {}, ())


def _report(
    chosen: Chosen,
    settings: Estimation,
    cap: float,
    rng: np.random.Generator,
    sides: tuple[Variable, Variable],
) -> dict[str, Any]:
    """Value, interval and flags in the units asked for. The value is cut to [0, cap], `raw` is not."""
    count = len(sides[0].points)
    value = min(max(float(chosen.value), 0.0), cap)
    low, high = (value, value) if settings.interval else (None, None)
    if settings.interval and chosen.estimator != "none":
        low, high = _interval(chosen, count, cap, rng)
    votes = [chosen.estimators[name] for name in chosen.votes if name in chosen.estimators]
    spread = max(votes) - min(votes) if votes else 0.0
    flags = [*dict.fromkeys((*sides[0].flags, *sides[1].flags, *chosen.flags))]
    if value > NEAR_CAP * cap > 0:
        flags.append("near_cap")
    if "near_cap" in flags or spread > max(DISAGREE * value, 0.05) or (high is not None and high >= cap > 0):
        flags.append("unreliable")
    scale = 1 / math.log(2) if settings.units == "bits" else 1.0

    def units(number: float | None) -> float | None:
        return None if number is None else float(number * scale)

    return {
        "value": units(value), "low": units(low), "high": units(high), "cap": units(cap), "raw": units(chosen.value),
        "units": settings.units, "estimator": chosen.estimator, "why": chosen.why, "flags": flags,
        "estimators": {name: units(number) for name, number in chosen.estimators.items()},
        "votes": list(chosen.votes), "spread": units(spread), "rows": count,
        "dimensions": [sides[0].points.shape[1], sides[1].points.shape[1]],
    }  # fmt: skip


def _interval(chosen: Chosen, count: int, cap: float, rng: np.random.Generator) -> tuple[float, float]:
    """95 %: the error of the sample and of the correction; on the side they lead to, drift with rows and doubt."""
    if chosen.error is None:
        error, freedom = intervals.standard_error(chosen.again, count, rng, fewest=chosen.fewest)
    else:
        error, freedom = chosen.error, FOLDS - 1
    half = math.hypot(intervals.half_width(error, freedom), 2 * chosen.slack if chosen.drifts else 0.0)
    low, high = chosen.value + min(chosen.doubt, 0.0) - half, chosen.value + max(chosen.doubt, 0.0) + half
    if chosen.drifts and count >= 400:
        drift = intervals.drift(chosen.again, count, chosen.again(np.arange(count)), rng)
        low, high = low + min(drift, 0.0), high + max(drift, 0.0)
    return min(max(low, 0.0), cap), min(max(high, 0.0), cap)


def _narrow(x: Variable, y: Variable) -> tuple[Variable, Variable]:
    """Principal components of a side too wide for its rows: a lower bound, and flagged as such."""
    most = len(x.points) // 20
    return tuple(  # type: ignore[return-value]
        side if side.points.shape[1] <= most else side._replace(
            points=principal(side.points, most), flags=(*side.flags, "projected"))
        for side in (x, y)
    )  # fmt: skip


def principal(points: Floats, most: int) -> Floats:
    """The first `most` principal components of points [N, D]."""
    centred = points - points.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, ::-1][:, :most]
