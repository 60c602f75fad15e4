"""Scores of artifacts that are no language models: one module a kind, found by the name of the kind.

A module `kinds/<kind>.py` (dashes as underscores) has `score(source, request, progress) -> dict`, the report, and
`tables(report) -> list`, what a person sees of it. Nothing else is edited to have `eval` score a new kind.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Request:
    """What `eval` was asked for, besides the artifact.

    data: paths of --data, in order; model, text, plot: as given or None; tokens: at most so many of the text are
    scored; threads: None for all cores; options: NAME=VALUE of --set, parsed as JSON where they are JSON.
    """

    data: tuple[str, ...] = ()
    model: str | None = None
    text: str | None = None
    plot: str | None = None
    tokens: int = 8192
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)


def module_of(kind: str) -> ModuleType | None:
    """The module that scores artifacts of a kind, or None where there is none."""
    name = f"{__name__}.{kind.replace('-', '_')}"
    if not kind.replace("-", "_").isidentifier() or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)
