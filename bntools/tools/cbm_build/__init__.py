"""Concept bottlenecks from embeddings: few concepts a class, at the sparsity asked for.

>>> import numpy as np
>>> from bntools.core.methods.cbm.inputs import Embeddings
>>> from bntools.core.progress import no_progress
>>> from bntools.tools.cbm_build import Settings, Sources, build_bottleneck
>>> rng = np.random.default_rng(0)
>>> directions = rng.standard_normal((6, 16)).astype("f")
>>> labels = np.arange(300) % 3
>>> rows = Embeddings(directions[labels] + 0.1 * rng.standard_normal((300, 16)).astype("f"), labels, [], {}, "rows")
>>> concepts = Embeddings(directions, None, list("abcdef"), {}, "concepts")
>>> model, _ = build_bottleneck(Sources(rows, concepts), Settings(nec=1), no_progress)
>>> sorted(model.names[i] for i in abs(model.weight).argmax(1))
['a', 'b', 'c']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.cbm_build.build import Sources
    from bntools.tools.cbm_build.builders import build as build_bottleneck
    from bntools.tools.cbm_build.settings import Settings

__all__ = ["Settings", "Sources", "build_bottleneck"]

__getattr__ = lazily(
    __name__, {"Settings": ".settings", "Sources": ".build", "build_bottleneck": ".builders:build"}
)
