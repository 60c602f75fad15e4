"""Embedding tables compressed as they are: prefixes of rotated rows, longest where errors cost most.

>>> import numpy as np
>>> from bntools.tools.embed_compress import embed_compress, foreign
>>> rng = np.random.default_rng(0)
>>> table = (rng.standard_normal((500, 2)) @ rng.standard_normal((2, 16))).astype("f")
>>> stored, sources = foreign("table", table, np.ones(500, "f"))
>>> _, report = embed_compress(stored, sources, budget=1 / 4, bits=8)
>>> report["ratio"] > 8
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.embed_compress.run import embed_compress, foreign

__all__ = ["embed_compress", "foreign"]

__getattr__ = lazily(__name__, {"embed_compress": ".run", "foreign": ".run"})
