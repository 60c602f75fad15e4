"""How large the result may be: `2.6` bits a linear weight, or `60MB` for the whole file."""

from __future__ import annotations

from bntools.core.errors import usage
from bntools.core.sizes import UNITS, split_unit


def parse_budget(text: str) -> tuple[float, str]:
    """(value, "bits" or "bytes"): MB is 10^6 bytes, MiB 2^20. Raises BnError (exit 2) on anything else."""
    found = split_unit(text)
    if found is None:
        raise usage(
            f"--budget {text!r} is neither bits a weight nor a size", "--budget 2.6, or --budget 60MB"
        )
    value, unit = found
    if unit:
        return value * UNITS[unit], "bytes"
    if not 0.5 <= value <= 16:
        raise usage(f"--budget {text}: bits a weight lie between 0.5 and 16", f"a size has a unit: {text}MB")
    return value, "bits"
