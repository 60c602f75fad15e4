"""Rows from sparse codes, edited if asked to.

>>> from bntools.tools.sparse_decode import parse
>>> parse("7=*0.5", 100)
(7, '*', 0.5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.sparse_decode.command import parse

__all__ = ["parse"]

__getattr__ = lazily(__name__, {"parse": ".command"})
