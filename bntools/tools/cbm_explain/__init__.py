"""What decides in a concept bottleneck, and what would change it.

>>> import numpy as np
>>> from bntools.core.methods.cbm.inputs import Embeddings
>>> from bntools.core.progress import no_progress
>>> from bntools.tools.cbm_build import Settings, Sources, build_bottleneck
>>> from bntools.tools.cbm_explain import local
>>> rng = np.random.default_rng(0)
>>> directions = rng.standard_normal((6, 16)).astype("f")
>>> labels = np.arange(300) % 3
>>> rows = Embeddings(directions[labels] + 0.1 * rng.standard_normal((300, 16)).astype("f"), labels, [], {}, "rows")
>>> concepts = Embeddings(directions, None, list("abcdef"), {}, "concepts")
>>> model, _ = build_bottleneck(Sources(rows, concepts), Settings(nec=1), no_progress)
>>> local(model, rows, row=1, top=1)["contributions"][0]["concept"]
'b'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.cbm_explain.explain import counterfactual, local, overall

__all__ = ["counterfactual", "local", "overall"]

__getattr__ = lazily(__name__, {"counterfactual": ".explain", "local": ".explain", "overall": ".explain"})
