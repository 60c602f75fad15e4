"""Vectors in few bytes for the queries they will meet: build, search, add and delete.

>>> import numpy as np
>>> from bntools.core.methods.vector_index.exact import InMemory
>>> from bntools.core.progress import no_progress
>>> from bntools.tools.vec_index import Settings, build_index
>>> vectors = np.random.default_rng(0).standard_normal((500, 16)).astype("f")
>>> index = build_index(InMemory(vectors), None, Settings(bytes=16), no_progress)
>>> index.facts["bytes_per_vector"] <= 16
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.vec_index.build import build_index
    from bntools.tools.vec_index.settings import Settings

__all__ = ["Settings", "build_index"]

__getattr__ = lazily(__name__, {"Settings": ".settings", "build_index": ".build"})
