"""Columns of a wide table that say something about one of them.

>>> import tempfile
>>> import numpy as np
>>> from bntools.core.progress import no_progress
>>> from bntools.tools.screen import Settings, open_table, screen
>>> y = np.arange(200) % 2
>>> rows = np.random.default_rng(0).standard_normal((200, 4)) + 3 * np.outer(y, [1, 0, 0, 0])
>>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
...     np.savetxt(file.name, np.column_stack([rows, y]), delimiter=",", header="a,b,c,d,y", comments="")
...     screening = screen(open_table(file.name), Settings("y", permutations=500), no_progress)
>>> int(screening.positions[screening.order[0]])
0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.core.datasets.tables import open_table
    from bntools.tools.screen.run import screen
    from bntools.tools.screen.settings import Settings

__all__ = ["Settings", "open_table", "screen"]

__getattr__ = lazily(
    __name__, {"Settings": ".settings", "open_table": "bntools.core.datasets.tables", "screen": ".run"}
)
