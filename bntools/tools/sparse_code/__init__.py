"""Sparse dictionaries of activations: training, and names for latents.

>>> from bntools.tools.sparse_code import Settings
>>> Settings(k=32, expand=8).width(576, 100_000)
4608
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.sparse_code.run import fit
    from bntools.tools.sparse_code.settings import Settings

__all__ = ["Settings", "fit"]

__getattr__ = lazily(__name__, {"Settings": ".settings", "fit": ".run"})
