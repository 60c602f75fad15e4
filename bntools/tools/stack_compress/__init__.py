"""One file of which every prefix is a model.

>>> from bntools.tools.stack_compress import Settings
>>> Settings(base=2.3, planes=7).planes  # compress(...) writes the artifact of bntools-stack(5)
7
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.stack_compress.build import Settings
    from bntools.tools.stack_compress.run import compress

__all__ = ["Settings", "compress"]

__getattr__ = lazily(__name__, {"Settings": ".build", "compress": ".run"})
