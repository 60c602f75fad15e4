"""Key-value caches in few bits: plans by measured rate and distortion, a cache of transformers, stored prompts.

A plan goes into transformers so:
`model.generate(**inputs, past_key_values=PlannedCache.from_plan("plan.json", model))`.

>>> from bntools.tools.kv_compress import Settings
>>> Settings(bits=1.6).code
'entropy'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.core.methods.kv.cache import PlannedCache
    from bntools.core.methods.kv.plan import CachePlan, read_plan, write_plan
    from bntools.core.methods.kv.score import score as score_plan
    from bntools.tools.kv_compress.run import make_plan
    from bntools.tools.kv_compress.settings import Settings

__all__ = ["CachePlan", "PlannedCache", "Settings", "make_plan", "read_plan", "score_plan", "write_plan"]

__getattr__ = lazily(
    __name__,
    {
        "CachePlan": "bntools.core.methods.kv.plan",
        "PlannedCache": "bntools.core.methods.kv.cache",
        "Settings": ".settings",
        "make_plan": ".run",
        "read_plan": "bntools.core.methods.kv.plan",
        "score_plan": "bntools.core.methods.kv.score:score",
        "write_plan": "bntools.core.methods.kv.plan",
    },
)
