"""How large the result may be: `2.6` bits a linear weight, or `60MB` for the whole file."""

from __future__ import annotations

import re

from bntools.core.errors import usage

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse_budget(text: str) -> tuple[float, str]:
    """(value, "bits" or "bytes"): MB is 10^6 bytes, MiB 2^20. Raises BnError (exit 2) on anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = found[2].upper() if found else ""
    if not found or (unit and unit not in _UNITS):
        raise usage(
            f"--budget {text!r} is neither bits a weight nor a size", "--budget 2.6, or --budget 60MB"
        )
    value = float(found[1])
    if unit:
        return value * _UNITS[unit], "bytes"
    if not 0.5 <= value <= 16:
        raise usage(f"--budget {text}: bits a weight lie between 0.5 and 16", f"a size has a unit: {text}MB")
    return value, "bits"
