"""What an attention moves between slow and fast memory, counted exactly, and the least it could.

>>> from bntools.tools.cost_attention import Problem, forward_plans
>>> forward_plans(Problem(rows=64, keys=64, width=8, memory=512))[0].moved
4160
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.tools.cost_attention.report import Settings, attention_report
    from bntools.tools.cost_attention.settings import Problem
    from bntools.tools.cost_attention.simulation import simulate
    from bntools.tools.cost_attention.traffic import Plan, Tile, backward_plans, forward_plans

_HOMES = {"Settings": "report", "attention_report": "report", "Problem": "settings", "simulate": "simulation",
          "Plan": "traffic", "Tile": "traffic", "backward_plans": "traffic", "forward_plans": "traffic"}  # fmt: skip

__all__ = [
    "Plan",
    "Problem",
    "Settings",
    "Tile",
    "attention_report",
    "backward_plans",
    "forward_plans",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without numbers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
