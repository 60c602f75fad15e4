"""High, low, high resolution: sampling that spends most steps where they are cheap."""

from __future__ import annotations

from typing import Any

__all__ = ["Settings", "build_schedule", "sample"]

_HOME = {"Settings": "settings", "build_schedule": "stages.schedule", "sample": "stages.sampler"}


def __getattr__(name: str) -> Any:
    """Load a name of the library face on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
