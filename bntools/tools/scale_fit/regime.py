"""Which of the regimes of 'Explaining Neural Scaling Laws' (Bahri et al., arXiv 2102.06701) an exponent belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bntools.core.errors import bad_input

VARIANCE, RESOLUTION, NEITHER, OPEN = "variance-limited", "resolution-limited", "neither", "undetermined"
WIDTH = 0.1
"""How far from 1 an exponent may be to count as variance-limited."""
PIECEWISE_LINEAR = 4.0
"""Exponent times dimension of a smooth target fitted piecewise linearly: the error s^2 at spacing s, squared."""


LOWEST, HIGHEST = 1.0, 5.0
"""Exponent times dimension of a resolution-limited law: from the bound for Lipschitz functions to a quarter above 4."""


@dataclass(frozen=True)
class Dimension:
    """A dimension of the data with its interval; low = high = value where none is known."""

    value: float
    low: float
    high: float


def dimension(report: Any, label: str) -> Dimension:
    """The dimension in a report of `bntools data-dim`. Raises BnError (exit 3)."""
    dimension = report.get("dimension") if isinstance(report, dict) else None
    numbers = [dimension.get(key) for key in ("value", "low", "high")] if isinstance(dimension, dict) else []
    if not numbers or not _positive(numbers[0]):
        raise bad_input(
            f"{label} has no dimension.value above 0", "give a number, or a report of bntools data-dim"
        )
    value = float(numbers[0])
    low, high = (float(n) if _positive(n) else value for n in numbers[1:])
    return Dimension(value, min(low, value), max(high, value))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def classify(exponent: dict[str, float | None], data: Dimension | None) -> dict[str, Any]:
    """Label of one exponent {value, low, high}, the dimension 4 / exponent implies, and exponent times dimension.

    Variance-limited: within 0.1 of 1. Resolution-limited: the interval of exponent times dimension meets 1 to 5.
    Without a dimension an exponent that is not near 1 is `undetermined`.
    """
    value = exponent["value"]
    if value is None or value <= 0:
        return {"label": OPEN}
    regime: dict[str, Any] = {"label": OPEN, "implied_dimension": _inverse(exponent)}
    near = abs(value - 1) <= WIDTH
    if data is not None:
        low, high = exponent["low"], exponent["high"]
        product = {
            "value": value * data.value,
            "low": (value if low is None else max(low, 0.0)) * data.low,
            "high": (value if high is None else high) * data.high,
        }
        regime["times_dimension"] = product
        regime["label"] = RESOLUTION if product["low"] <= HIGHEST and product["high"] >= LOWEST else NEITHER
        regime["four_over_d"] = product["low"] <= PIECEWISE_LINEAR <= product["high"]
    if near:
        regime["label"] = VARIANCE
    return regime


def _inverse(exponent: dict[str, float | None]) -> dict[str, float | None]:
    """4 / exponent; the upper end is open where the exponent's interval reaches 0."""

    def over(value: float | None) -> float | None:
        return PIECEWISE_LINEAR / value if value is not None and value > 0 else None

    return {"value": over(exponent["value"]), "low": over(exponent["high"]), "high": over(exponent["low"])}


def overall(labels: list[str]) -> str:
    """One label for all exponents: theirs if it is the same, else `mixed`."""
    return labels[0] if len(set(labels)) == 1 else "mixed"
