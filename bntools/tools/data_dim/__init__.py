"""The intrinsic dimension of a point cloud, with an interval.

>>> import numpy as np
>>> from bntools.tools.data_dim import Settings, data_dimension
>>> rng = np.random.default_rng(0)
>>> points = rng.standard_normal((1000, 3)) @ rng.standard_normal((3, 20))
>>> report = data_dimension(points, Settings(estimators=("calibrated",)))
>>> round(report["dimension"]["value"])
3
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.data_dim.dimension import Settings, data_dimension

__all__ = ["Settings", "data_dimension"]

__getattr__ = lazily(__name__, {"Settings": ".dimension", "data_dimension": ".dimension"})
