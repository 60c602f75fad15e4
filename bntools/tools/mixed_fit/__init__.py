"""Linear mixed models with Gaussian errors or the heavier tails of a power law.

>>> import tempfile
>>> import numpy as np
>>> from bntools.tools.mixed_fit import Settings, mixed_fit, open_table, read_data
>>> r = np.random.default_rng(0)
>>> group = np.repeat(np.arange(20), 10)
>>> y = 5 + r.standard_normal(20)[group] + 0.1 * r.standard_normal(200)
>>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
...     np.savetxt(file.name, np.column_stack([group, y]), delimiter=",", header="group,y", comments="")
...     settings = Settings("y", random=("1|group",))
...     fits = mixed_fit(read_data(open_table(file.name), settings), settings)
>>> len(fits)
3
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.core.datasets.tables import open_table
    from bntools.tools.mixed_fit.data import read_data
    from bntools.tools.mixed_fit.fit import mixed_fit
    from bntools.tools.mixed_fit.settings import Settings

__all__ = ["Settings", "mixed_fit", "open_table", "read_data"]

__getattr__ = lazily(
    __name__,
    {
        "Settings": ".settings",
        "mixed_fit": ".fit",
        "open_table": "bntools.core.datasets.tables",
        "read_data": ".data",
    },
)
