"""Values out of a file's JSON, checked where they are read: of their type and in their range, or ValueError."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 1 << 40  # of a size or a count: products of some of them stay exact and cheap


def whole(value: Any, low: int = 0, high: int = LARGEST) -> int:
    """A whole number from low to high, also written as 3.0; True is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]} is no whole number from {low} to {high}")
    if value != int(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or value != value:
        raise ValueError(f"{str(value)[:40]} is no finite number")
    return float(value)


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]} is no text")
    return value


def flag(value: Any) -> bool:
    """true or false; 0 and 1 stand for them."""
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"{str(value)[:40]} is neither true nor false")
    return bool(value)


def shape(value: Any) -> tuple[int, ...]:
    """Sizes of at least 1, of at most eight axes, whose product is a number of weights that may exist."""
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        raise ValueError("a shape is a list of sizes")
    sizes = tuple(whole(size, 1) for size in value)
    if math.prod(sizes) > LARGEST:
        raise ValueError("shape overflows")
    return sizes


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value
