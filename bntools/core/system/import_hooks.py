"""Be there when a large library is imported, without importing it."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Execute = Callable[[ModuleType], None]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage meanwhile, nor one of all that was made right after it.

    An import makes objects by the hundred thousand, and hardly any garbage: it is left to the searches through
    everything, which are rare.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if not gc.get_freeze_count():  # else the caller's frozen objects would thaw
                gc.freeze()  # all into the oldest generation: together, without a look at any
                gc.unfreeze()
            gc.enable()


class _Watch:
    """An import finder that finds nothing of its own, but has one module executed by `around`."""

    def __init__(self, name: str, around: Callable[[Execute], Execute]) -> None:
        self.name, self._around = name, around

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        others = [getattr(finder, "find_spec", None) for finder in sys.meta_path if finder is not self]
        spec = next((found for find in others if find and (found := find(name, path, target))), None)
        loader: Any = spec.loader if spec else None
        if loader is not None and hasattr(loader, "exec_module"):
            loader.exec_module = self._once(loader.exec_module)
        return spec

    def _once(self, plain: Execute) -> Execute:
        """`around` for this module at its first import, and not for others of a loader that has several."""

        def execute(module: ModuleType) -> None:
            if self not in sys.meta_path or module.__name__ != self.name:
                return plain(module)
            sys.meta_path.remove(self)
            return self._around(plain)(module)

        return execute


def around(name: str, wrapper: Callable[[Execute], Execute]) -> None:
    """Wrap what executes a module when it is imported; nothing where it has been, or is watched already."""
    watched = any(isinstance(finder, _Watch) and finder.name == name for finder in sys.meta_path)
    if name not in sys.modules and not watched:
        sys.meta_path.insert(0, _Watch(name, wrapper))


def after(name: str, action: Execute) -> None:
    """Have something done with a module as soon as it has been imported."""

    def wrapper(execute: Execute) -> Execute:
        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action(module)

        return execute_and_act

    around(name, wrapper)
