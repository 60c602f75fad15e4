"""Models and data sets by name, checked and cached.

>>> from bntools.tools.fetch import CATALOG, lookup
>>> lookup("mnist") is CATALOG["mnist"]
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.fetch.catalog import CATALOG, lookup
    from bntools.tools.fetch.obtain import fetch

__all__ = ["CATALOG", "fetch", "lookup"]

__getattr__ = lazily(__name__, {"CATALOG": ".catalog", "fetch": ".obtain", "lookup": ".catalog"})
