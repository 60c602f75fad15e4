"""What an attention moves between slow and fast memory, counted exactly, and the least it could.

>>> from bntools.tools.cost_attention import Problem, forward_plans
>>> forward_plans(Problem(rows=64, keys=64, width=8, memory=512))[0].moved
4160
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.cost_attention.report import Settings, attention_report
    from bntools.tools.cost_attention.settings import Problem
    from bntools.tools.cost_attention.simulation import simulate
    from bntools.tools.cost_attention.traffic import Plan, Tile, backward_plans, forward_plans


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

__getattr__ = lazily(
    __name__,
    {
        "Settings": ".report",
        "attention_report": ".report",
        "Problem": ".settings",
        "simulate": ".simulation",
        "Plan": ".traffic",
        "Tile": ".traffic",
        "backward_plans": ".traffic",
        "forward_plans": ".traffic",
    },
)
