"""What a screening costs, for --dry-run."""

from __future__ import annotations

from typing import Any

from bntools.core.datasets.tables import Table
from bntools.tools.screen.run import _CELLS, _room
from bntools.tools.screen.settings import Settings

_NANOSECONDS = {"auto": 65, "kde": 45, "bins": 20, "xi": 15, "pearson": 6, "knn": 1000, "fftkde": 80_000}
"""Of one value on one core, measured at 500 rows with a continuous outcome."""


def plan(table: Table, settings: Settings) -> dict[str, Any]:
    """What would be read and scored, with estimates of memory and seconds of one core."""
    cells = table.rows * len(table)
    best = _room(settings, table.rows) * table.rows * 8
    return {
        "kind": "plan",
        "rows": table.rows,
        "columns": len(table),
        "target": settings.target,
        "method": settings.method,
        "memory_bytes": int(30 * _CELLS + 40 * len(table) + 10 * best),
        "core_seconds": round(cells * _NANOSECONDS[settings.method] * 1e-9, 1),
    }
