"""What an artifact or model holds, from its headers.

>>> from bntools.core.model.open import open_input
>>> from bntools.tools.info import describe_input
>>> describe_input(open_input("default:"), "default:", tensors=False, modules=False)["weights"]
1271200
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.info.describe import describe as describe_input

__all__ = ["describe_input"]

__getattr__ = lazily(__name__, {"describe_input": ".describe:describe"})
