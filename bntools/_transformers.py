"""Make transformers know our packed models as soon as it is imported, and be imported faster, without importing it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import ModuleType

from bntools.core.system import import_hooks

_REGISTRY = "transformers.quantizers.auto"
_STRUCTURE = "transformers.utils.import_utils"


def install() -> None:
    """Register with transformers, now if it is there already, else when it is imported.

    transformers has no entry points for quantizers, and `import bntools` must not cost what importing transformers
    costs, so the registration waits for the import of the one module that it changes.
    """
    import_hooks.around("torch", import_hooks.uncollected())
    import_hooks.after(_STRUCTURE, hasten)
    if _REGISTRY in sys.modules:
        register()
    else:
        import_hooks.after(_REGISTRY, lambda module: register())


def register() -> None:
    """Add the quantization method `bntools`; a transformers too old to have one added is left as it is."""
    with contextlib.suppress(ImportError):
        importlib.import_module("bntools.core.resident.transformers_quantizer").register()


def hasten(module: ModuleType) -> None:
    """Have it find the `__all__` of each of its 1600 files of models faster: it looks at every line of them all.

    It takes the last line that begins with `__all__`, so it is given the file from there on, and finds the same. A
    transformers that reads its files in another way is left as it is.
    """
    find = getattr(module, "fetch__all__", None)
    if find is not None:
        module.fetch__all__ = lambda text: find(text[text.rfind("\n__all__") + 1 :])  # type: ignore[attr-defined]
