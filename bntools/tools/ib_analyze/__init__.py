"""Information planes of a network's training: what each layer tells of input and label, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.tools.ib_analyze.run import analyze
    from bntools.tools.ib_analyze.settings import Planes

_HOME = {"analyze": "run", "Planes": "settings"}

__all__ = ["Planes", "analyze"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
