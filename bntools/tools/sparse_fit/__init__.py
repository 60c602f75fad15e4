"""Sparse regression: paths of SCAD, MCP and lasso, and which step of a path to take.

>>> import tempfile
>>> import numpy as np
>>> from bntools.core.progress import no_progress
>>> from bntools.tools.sparse_fit import Settings, open_table, read_design, sparse_fit
>>> x = np.random.default_rng(0).standard_normal((100, 5))
>>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
...     np.savetxt(file.name, np.column_stack([x, 2 * x[:, 1]]), delimiter=",", header="a,b,c,d,e,y", comments="")
...     settings = Settings("y", folds=3)
...     fits = sparse_fit(read_design(open_table(file.name), settings), settings, no_progress)
>>> sorted(fits)
['lasso', 'mcp']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.core.datasets.tables import open_table
    from bntools.tools.sparse_fit.design import read_design
    from bntools.tools.sparse_fit.fit import sparse_fit
    from bntools.tools.sparse_fit.settings import Settings

__all__ = ["Settings", "open_table", "read_design", "sparse_fit"]

__getattr__ = lazily(
    __name__,
    {
        "Settings": ".settings",
        "open_table": "bntools.core.datasets.tables",
        "read_design": ".design",
        "sparse_fit": ".fit",
    },
)
