"""Sparse regression: paths of SCAD, MCP and lasso, and which step of a path to take.

>>> from bntools.tools.sparse_fit import Settings, open_table, read_design, sparse_fit
"""

from __future__ import annotations

from typing import Any

__all__ = ["Settings", "open_table", "read_design", "sparse_fit"]

_HOMES = {
    "Settings": "bntools.tools.sparse_fit.settings",
    "open_table": "bntools.core.datasets.tables",
    "read_design": "bntools.tools.sparse_fit.design",
    "sparse_fit": "bntools.tools.sparse_fit.fit",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(_HOMES[name]), name)
