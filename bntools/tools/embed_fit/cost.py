"""What a sweep would hold and fit, from the table alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.methods.embedding.shares import budget_name
from bntools.tools.embed_fit.problem import Data
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.sweep import units


def plan(data: Data, settings: Settings) -> dict[str, Any]:
    """Values and bytes of each field at the full width, bytes at each budget, memory, number of fits at most."""
    fields = []
    for name, column in data.columns.items():
        count = len(np.unique(column))
        fields.append({"name": name, "values": count, "bytes": 4 * count * settings.dim})
    total = sum(f["bytes"] for f in fields)
    code = settings.bits / 32
    budgets = [
        {"budget": b, "budget_name": budget_name(b), "bytes": int(total * b * code)} for b in settings.budgets
    ]
    tunings = 1 if settings.lambda_ is not None else 4
    each = [1 if u.method in ("reference", "small_full") else len(settings.budgets) for u in units(settings)]
    return {
        "kind": "plan", "rows": len(data.y), "task": data.task, "fields": fields, "budgets": budgets,
        "fits": sum(each) * tunings, "memory_bytes": 8 * total + 8 * len(data.y) * len(fields) + 400_000_000,
    }  # fmt: skip
