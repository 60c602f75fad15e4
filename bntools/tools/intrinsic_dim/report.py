"""What a search found, as the report says it, and what its reader should be warned of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from bntools.tools.intrinsic_dim.fit import Interval
from bntools.tools.intrinsic_dim.runs import Run
from bntools.tools.intrinsic_dim.search import Found, Plan


def summary(search: Found, plan: Plan) -> dict[str, Any]:
    """The part of a report that a search determines."""
    mean, se = baseline(search)
    interval = Interval(None, None, None) if guessed(search, plan) else search.interval
    return {
        f"d_int{100 * plan.threshold:g}": interval._asdict(),
        "threshold": plan.threshold,
        "target": search.target,
        "reached": search.reached and not guessed(search, plan),
        "D": plan.size,
        "baseline": {"mean": mean, "se": se, "lr": search.baseline[0].job.lr},
        "largest_class": plan.guessing and plan.guessing[0],
        "curve": [
            {"dim": int(d), "mean": float(m), "se": float(s), "runs": int(n), "fit": float(f),
             "lr": search.rate.get(int(d))}
            for d, m, s, n, f in zip(*search.curve, strict=True)
        ],
        "warnings": list(warnings(search, plan)),
        "runs": [run.record() for run in _distinct(search.runs)],
    }  # fmt: skip


def baseline(search: Found) -> tuple[float, float]:
    """Mean score of training all parameters and its standard error over seeds."""
    scores = [run.outcome.score for run in search.baseline]
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) if len(scores) > 1 else 0.0
    return mean, spread / math.sqrt(len(scores))


def guessed(search: Found, plan: Plan) -> str:
    """Why the target says nothing: what guessing reaches; empty where it does say something."""
    if plan.guessing is None:
        return ""
    (largest, rows), (mean, se) = plan.guessing, baseline(search)
    error = max(se, math.sqrt(largest * (1 - largest) / rows))
    if mean <= largest + 2 * error:
        what = f"the baseline, {mean:.3g}, is no better than always naming the largest class, {largest:.3g}"
        return f"{what}, within two standard errors: nothing was learned that could have a dimension"
    if search.target <= largest:
        what = (
            f"the target, {search.target:.3g}, is no more than always naming the largest class, {largest:.3g}"
        )
        return f"{what}: reaching it takes no learning; a larger --threshold is above it"
    return ""


def seconds(search: Found) -> float:
    """CPU time of all runs of the report, whichever command made them."""
    return round(sum(run.outcome.seconds for run in _distinct(search.runs)), 1)


def warnings(search: Found, plan: Plan) -> Iterator[dict[str, str]]:
    """Objects of a stable `name` and a `text`: what bounds the dimension and what does not."""
    if guessed(search, plan):
        yield {"name": "guessing", "text": guessed(search, plan)}
        return
    interval, curve = search.interval, search.curve
    first, last = int(curve.dims[0]), int(curve.dims[-1])
    if interval.value is None:
        wider = "" if last >= plan.size else f"; try --dims beyond {last}"
        text = f"no dimension tried, up to {last}, reaches the target: the dimension is larger{wider}"
        yield {"name": "not-reached", "text": text}
    elif interval.high is None:
        text = (
            f"the upper end is open: means scatter by {curve.se[-1]:.3g} over seeds, so that not even d = {last}, "
            "the largest tried, is sure to reach the target; more --seeds, longer --epochs or larger --dims close it"
        )
        yield {"name": "open-above", "text": text}
    if interval.value is not None and interval.low is None:
        text = f"the lower end is open: d = {first}, the smallest tried, may reach the target; try --dims below it"
        yield {"name": "open-below", "text": text}
    if len(plan.seeds) == 1 and interval.value is not None:
        yield {
            "name": "one-seed",
            "text": "with one seed the interval is only the bracket of dimensions tried",
        }


def dimension_key(report: dict[str, Any]) -> str:
    """The key that holds the dimension, `d_int90` at the default threshold."""
    return next(name for name in report if name.startswith("d_int"))


def number(dim: float) -> str:
    """A dimension in words."""
    return f"{dim:.2g}" if dim < 100 else f"{dim:,.0f}"


def ends(dimension: dict[str, Any]) -> str:
    """The interval in words; nothing where neither side is bounded."""
    low, high = (None if dimension[end] is None else number(dimension[end]) for end in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else f"{high} or less" if high else ""


def interval(dimension: dict[str, Any]) -> str:
    """A dimension and its interval in words."""
    if dimension["value"] is None:
        return "not reached" + (f", more than {number(dimension['low'])}" if dimension["low"] else "")
    return number(dimension["value"]) + (f" ({ends(dimension)})" if ends(dimension) else "")


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Every run once; one that was also asked for as a confirmation is listed as that."""
    by_job: dict[str, Run] = {}
    for run in runs:
        if by_job.get(run.key) is None or run.job.phase == "confirm":
            by_job[run.key] = run
    return list(by_job.values())
