"""Scaling laws from training runs: the fit, its intervals, the regime, and what a budget buys.

`fit_scaling_law`, `Settings`, `training_runs` and `fit_report` are the library, loaded when first
asked for: help stays light.
"""

from __future__ import annotations

from typing import Any

_HOMES = {"fit_scaling_law": "fit", "Settings": "fit", "training_runs": "runs", "fit_report": "report"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
