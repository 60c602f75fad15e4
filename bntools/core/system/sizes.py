"""Sizes as a user writes them: 60MB is 60 * 10^6 bytes, 57MiB is 57 * 2^20."""

from __future__ import annotations

import re

from bntools.core.errors import usage

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def split_unit(text: str) -> tuple[float, str] | None:
    """(number, unit in capitals or ""), None for what is no number with a known unit or none."""
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else ""
    return (float(match[1]), unit) if match and (not unit or unit in UNITS) else None


def parse_bytes(text: str, option: str = "--budget") -> int:
    """Bytes of a size; a number without a unit is bytes. Raises BnError (exit 2) on anything else."""
    parsed = split_unit(text)
    if parsed is None or parsed[0] <= 0:
        raise usage(f"{option} {text!r} is not a size", f"{option} 90MB, 90MiB or 90000000")
    return int(parsed[0] * UNITS[parsed[1] or "B"])
