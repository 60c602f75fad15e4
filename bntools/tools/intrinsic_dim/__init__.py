"""How many dimensions a learning problem has: training in random subspaces.

>>> from bntools.tools.intrinsic_dim import curve
>>> curve([10, 20, 40], [0.5, 0.8, 0.9]).dims.tolist()
[10.0, 20.0, 40.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.intrinsic_dim.fit import curve
    from bntools.tools.intrinsic_dim.ledger import Ledger
    from bntools.tools.intrinsic_dim.measure import Settings
    from bntools.tools.intrinsic_dim.measure import measure as measure_dimension
    from bntools.tools.intrinsic_dim.problem import Source

__all__ = ["Ledger", "Settings", "Source", "curve", "measure_dimension"]

__getattr__ = lazily(
    __name__,
    {
        "Ledger": ".ledger",
        "Settings": ".measure",
        "Source": ".problem",
        "curve": ".fit",
        "measure_dimension": ".measure:measure",
    },
)
