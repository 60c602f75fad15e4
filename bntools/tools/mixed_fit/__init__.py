"""Linear mixed models with Gaussian errors or the heavier tails of a power law.

>>> from bntools.tools.mixed_fit import Settings, mixed_fit, open_table, read_data
"""

from __future__ import annotations

from typing import Any

__all__ = ["Settings", "mixed_fit", "open_table", "read_data"]

_HOMES = {
    "Settings": "bntools.tools.mixed_fit.settings",
    "open_table": "bntools.core.datasets.tables",
    "mixed_fit": "bntools.tools.mixed_fit.fit",
    "read_data": "bntools.tools.mixed_fit.data",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(_HOMES[name]), name)
