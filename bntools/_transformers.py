"""Make transformers know our packed models as soon as it is imported, without importing it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REGISTRY = "transformers.quantizers.auto"


class _Watch:
    """An import finder that finds nothing of its own: when transformers' registry is imported, it adds us to it.

    transformers has no entry points for quantizers, and `import bntools` must not cost what importing transformers
    costs, so the registration waits for the import of the one module that it changes.
    """

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec else None
        if loader is not None:
            execute = loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                register()

            loader.exec_module = execute_and_register
        return spec


def install() -> None:
    """Register with transformers, now if it is there already, else when it is imported."""
    if _REGISTRY in sys.modules:
        register()
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


def register() -> None:
    """Add the quantization method `bntools`; a transformers too old to have one added is left as it is."""
    with contextlib.suppress(ImportError):
        importlib.import_module("bntools.core.hf_quantizer").register()
