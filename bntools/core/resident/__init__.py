"""Models that run packed, in memory: `Resident` grows and shrinks a stack while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.core.resident.resize import Resident

__all__ = ["Resident"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from bntools.core.resident import resize

    return getattr(resize, name)
