"""Mutual information of pairs of variables, with a cap, an interval and flags.

>>> import numpy as np
>>> from bntools.tools.mi import mutual_information
>>> r = np.random.default_rng(0)
>>> x = r.standard_normal((1000, 2))
>>> estimate = mutual_information(x, x + r.standard_normal((1000, 2)))
>>> estimate["low"] < 0.693 < estimate["high"] < estimate["cap"]
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.core.information.estimate import mutual_information
    from bntools.core.information.estimators import Estimation

__all__ = ["Estimation", "mutual_information"]

__getattr__ = lazily(
    __name__,
    {
        "Estimation": "bntools.core.information.estimators",
        "mutual_information": "bntools.core.information.estimate",
    },
)
