"""How many axes a Gaussian code of data needs, and what the others cost: ARD-VAE, a plain VAE, linear models.

>>> import numpy as np
>>> from bntools.tools.ard_fit import RowSource, Settings, ard_fit
>>> z = np.random.default_rng(0).normal(size=(500, 2))
>>> x = (z @ np.random.default_rng(1).normal(size=(2, 8))).astype(np.float32)
>>> rows = RowSource(lambda a, b: x[a:b], 500, (8,), "x")
>>> ard_fit(rows, Settings(arch="linear", baseline=False)).report["n_relevant"]["value"]
2
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.core.methods.vae.rows import RowSource
    from bntools.tools.ard_fit.run import Fit, ard_fit
    from bntools.tools.ard_fit.settings import Settings

__all__ = ["Fit", "RowSource", "Settings", "ard_fit"]

__getattr__ = lazily(
    __name__,
    {"Fit": ".run", "RowSource": "bntools.core.methods.vae.rows", "Settings": ".settings", "ard_fit": ".run"},
)
