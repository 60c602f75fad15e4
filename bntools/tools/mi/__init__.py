"""Mutual information of pairs of variables, with a cap, an interval and flags.

>>> import numpy as np
>>> from bntools.tools.mi import mutual_information
>>> r = np.random.default_rng(0)
>>> x = r.standard_normal((1000, 2))
>>> found = mutual_information(x, x + r.standard_normal((1000, 2)))
>>> found["low"] < 0.693 < found["high"] < found["cap"]
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.core.information.estimate import mutual_information
    from bntools.core.information.estimators import Estimation
    from bntools.tools.mi.rank import rank
    from bntools.tools.mi.selftest import selftest
    from bntools.tools.mi.tasks import tasks

_HOME = {
    "mutual_information": "bntools.core.information.estimate", "Estimation": "bntools.core.information.estimators",
    "rank": "bntools.tools.mi.rank", "selftest": "bntools.tools.mi.selftest", "tasks": "bntools.tools.mi.tasks",
}  # fmt: skip

__all__ = ["Estimation", "mutual_information", "rank", "selftest", "tasks"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
