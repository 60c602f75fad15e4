"""Test-time scaling priced by compute and memory traffic together: which model, how many trials, for a budget.

>>> from bntools.tools.cost_tts import sum_seen
>>> sum_seen(prompt=100, generated=1000, cap=512)
427334
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.cost_tts.frontier import Settings, scaling_report
    from bntools.tools.cost_tts.price import Price, sum_seen
    from bntools.tools.cost_tts.runs import Group, read_runs


__all__ = ["Group", "Price", "Settings", "read_runs", "scaling_report", "sum_seen"]

__getattr__ = lazily(
    __name__,
    {
        "Settings": ".frontier",
        "scaling_report": ".frontier",
        "Price": ".price",
        "sum_seen": ".price",
        "Group": ".runs",
        "read_runs": ".runs",
    },
)
