"""Packages whose names are loaded when they are first asked for: a command's help costs no import of its methods."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`: each name comes from the module of `homes`, relative to the package if it begins with
    a dot. `.module:other` takes it from another name there: a name of the package must not be that of one of its
    modules, which an import of the module would put in its place. Raises AttributeError for a name that is not there.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other = homes[name].partition(":")
        return getattr(importlib.import_module(module, package), other or name)

    return __getattr__
