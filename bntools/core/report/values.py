"""Numbers as reports carry them."""

from __future__ import annotations

import math
from typing import TypedDict


class Interval(TypedDict):
    """An estimate and its interval; None where the data do not determine it."""

    value: float | None
    low: float | None
    high: float | None


class MeanError(TypedDict):
    """A mean and its standard error."""

    mean: float
    se: float | None


def four_digits(value: float) -> float:
    """The number rounded to four significant digits, as predictions are printed."""
    return float(f"{value:.4g}")


def six_digits(value: float) -> float:
    """The number rounded to six significant digits, as divergences of a training are reported."""
    return float(f"{value:.6g}")


def interval(value: float, low: float, high: float) -> Interval:
    """An interval of plain floats, None for what is not finite. Raises ValueError unless low <= value <= high."""
    if math.isfinite(value) and (low > value or high < value):
        raise ValueError(f"{value} is outside its interval {low} to {high}")
    plain = [float(x) if math.isfinite(x) else None for x in (value, low, high)]
    return {"value": plain[0], "low": plain[1], "high": plain[2]}
