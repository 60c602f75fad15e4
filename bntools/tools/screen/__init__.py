"""Columns of a wide table that say something about one of them.

>>> from bntools.tools.screen import Settings, open_table, screen
"""

from __future__ import annotations

from typing import Any

__all__ = ["Settings", "open_table", "screen"]

_HOMES = {
    "Settings": "bntools.tools.screen.settings",
    "open_table": "bntools.core.datasets.tables",
    "screen": "bntools.tools.screen.run",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(_HOMES[name]), name)
