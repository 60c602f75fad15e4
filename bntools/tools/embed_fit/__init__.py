"""Embedding tables as small as they can be, against baselines that are tuned, too.

>>> from bntools.tools.embed_fit import Settings
>>> Settings(methods=("spectral", "hash"), budgets=(1 / 8, 1 / 16)).dim  # embed_fit(read_data(table, "y", ...), ...)
16
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.embed_fit.problem import read as read_data
    from bntools.tools.embed_fit.report import embed_fit
    from bntools.tools.embed_fit.settings import Settings

__all__ = ["Settings", "embed_fit", "read_data"]

__getattr__ = lazily(
    __name__, {"Settings": ".settings", "embed_fit": ".report", "read_data": ".problem:read"}
)
