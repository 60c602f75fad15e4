"""How many axes a Gaussian code of data needs, and what the others cost: ARD-VAE, a plain VAE, linear models."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"Settings": "settings", "Fit": "run", "ard_fit": "run"}

__all__ = ["Fit", "Settings", "ard_fit"]  # loaded on first use


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
