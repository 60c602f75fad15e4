"""Activations of a small network while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.tools.record.run import Recording, record

__all__ = ["Recording", "record"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bntools.tools.record import run

    return getattr(run, name)
