"""What a mixture of sources will give at a size not yet paid for, and which mixture to buy.

>>> from bntools.tools.data_mix import Settings, from_records, mix_report
>>> error = lambda p, n: 0.1 + 0.3 * (p - 0.4) ** 2 + 2 / n**0.5
>>> lines = [
...     {"weights": {"web": p, "code": 1 - p}, "n": n, "metric": error(p, n), "kind": "error"}
...     for p in (0, 0.2, 0.5, 0.8, 1)
...     for n in (100, 200, 400)
... ]
>>> report = mix_report(from_records(enumerate(lines, 1)), Settings(at=1600))
>>> 0.25 < report["proposed"]["mixture"]["web"] < 0.55
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.data_mix.report import mix_report
    from bntools.tools.data_mix.runs.read import Reading, from_records, read_runs
    from bntools.tools.data_mix.runs.runs import Runs
    from bntools.tools.data_mix.settings import Settings

__all__ = ["Reading", "Runs", "Settings", "from_records", "mix_report", "read_runs"]

__getattr__ = lazily(
    __name__,
    {
        "Reading": ".runs.read",
        "Runs": ".runs.runs",
        "Settings": ".settings",
        "from_records": ".runs.read",
        "mix_report": ".report",
        "read_runs": ".runs.read",
    },
)
