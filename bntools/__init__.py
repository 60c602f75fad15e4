"""bntools: find, build, compress and measure the bottlenecks and dimensions of neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bntools import _transformers

if TYPE_CHECKING:
    from bntools.core.model.open import open_model

__all__ = ["open_model"]

__version__ = "0.1.0"

_transformers.install()


def __getattr__(name: str) -> Any:
    """`bntools.open_model`, the library's front door, without making `import bntools` any dearer."""
    if name != "open_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module("bntools.core.model.open").open_model
