"""Vectors in few bytes for the queries they will meet: build, search, add and delete."""

from __future__ import annotations

from typing import Any

__all__ = ["Settings", "build_index"]


def __getattr__(name: str) -> Any:
    """Load a name of the library face on first use."""
    if name == "build_index":
        from bntools.tools.vec_index.build import build_index

        return build_index
    if name == "Settings":
        from bntools.tools.vec_index.settings import Settings

        return Settings
    raise AttributeError(name)
