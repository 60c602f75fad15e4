"""Test-time scaling priced by compute and memory traffic together: which model, how many trials, for a budget.

>>> from bntools.tools.cost_tts import sum_seen
>>> sum_seen(prompt=100, generated=1000, cap=512)
427334
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.tools.cost_tts.frontier import Settings, scaling_report
    from bntools.tools.cost_tts.price import Price, sum_seen
    from bntools.tools.cost_tts.runs import Group, read_runs

_HOMES = {"Settings": "frontier", "scaling_report": "frontier", "Price": "price", "sum_seen": "price",
          "Group": "runs", "read_runs": "runs"}  # fmt: skip

__all__ = ["Group", "Price", "Settings", "read_runs", "scaling_report", "sum_seen"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without numbers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
