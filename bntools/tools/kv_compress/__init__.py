"""Key-value caches in few bits: plans by measured rate and distortion, a cache of transformers, stored prompts.

from bntools.tools.kv_compress import PlannedCache
cache = PlannedCache.from_plan("plan.json", model)
model.generate(**inputs, past_key_values=cache)
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CachePlan": "bntools.core.methods.kv.plan",
    "PlannedCache": "bntools.core.methods.kv.cache",
    "Settings": "bntools.tools.kv_compress.settings",
    "make_plan": "bntools.tools.kv_compress.run",
    "read_plan": "bntools.core.methods.kv.plan",
    "score": "bntools.core.methods.kv.score",
    "write_plan": "bntools.core.methods.kv.plan",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Loaded when it is asked for: the command's help needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    return module if name == "score" else getattr(module, name)
