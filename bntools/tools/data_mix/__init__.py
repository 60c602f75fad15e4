"""What a mixture of sources will give at a size not yet paid for, and which mixture to buy.

`mix_report`, `Settings`, `from_records` and `read_runs` are the library, loaded when first asked for.
"""

from __future__ import annotations

from typing import Any

_HOMES = {"mix_report": "report", "Settings": "settings", "from_records": "runs.read", "read_runs": "runs.read",
          "Reading": "runs.read", "Runs": "runs.runs"}  # fmt: skip
__all__ = ["Reading", "Runs", "Settings", "from_records", "mix_report", "read_runs"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
