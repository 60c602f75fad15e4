"""Information planes of a network's training: what each layer tells of input and label, epoch by epoch.

>>> from bntools.tools.ib_analyze import Planes
>>> Planes(estimator="binning").estimator  # analyze(dump, None, Planes(...)) is the report of bntools-ib-analyze(1)
'binning'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.ib_analyze.run import analyze
    from bntools.tools.ib_analyze.settings import Planes

__all__ = ["Planes", "analyze"]

__getattr__ = lazily(__name__, {"Planes": ".settings", "analyze": ".run"})
