"""Budgets as shares of a full table."""

from __future__ import annotations

from fractions import Fraction

from bntools.core.errors import usage


def parse_budgets(text: str) -> tuple[float, ...]:
    """`1/8`, `0.1`, `1/2,1/4`, or `1/2..1/32`, halved from the first to the last. Raises BnError (exit 2)."""
    try:
        if ".." in text:
            first, last = (Fraction(part) for part in text.split(".."))
            if not 0 < last <= first <= 1:
                raise ValueError
            result = [first]
            while result[-1] / 2 >= last:
                result.append(result[-1] / 2)
            return tuple(float(x) for x in result)
        result = [Fraction(part.strip()) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise usage(
            f"--budget {text!r} is no share and no range of shares", "--budget 1/8, or 1/2..1/32"
        ) from None
    if any(not 0 < x <= 1 for x in result):
        raise usage(f"--budget {text}: a share of the full table is over 0 and at most 1", "--budget 1/8")
    return tuple(dict.fromkeys(float(x) for x in result))


def budget_name(budget: float) -> str:
    """1/8 where that is what it is."""
    near = Fraction(budget).limit_denominator(4096)
    return f"{near.numerator}/{near.denominator}" if abs(near - Fraction(budget)) < 1e-12 else f"{budget:.4g}"
