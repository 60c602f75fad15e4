"""What a model makes of texts or images, as rows of an artifact.

>>> from bntools.tools.embed import Settings
>>> Settings(layers=(1, 3)).tensor(1)
'layer.3'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.embed.run import write
    from bntools.tools.embed.settings import Settings

__all__ = ["Settings", "write"]

__getattr__ = lazily(__name__, {"Settings": ".settings", "write": ".run"})
