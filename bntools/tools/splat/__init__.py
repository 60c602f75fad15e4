"""Coded elements rendered, and queries answered in code space.

>>> import numpy as np
>>> from bntools.kernels.sparse.composite import Splats
>>> from bntools.tools.splat import Scene, maps, weights
>>> one = np.ones((1, 1), "f")
>>> splats = Splats(np.array([[1, 1]], "f"), np.array([[1, 0, 1]], "f"), one[0], one[0])
>>> scene = Scene(splats, np.zeros((1, 1), np.int32), one, height=3, width=3)
>>> W, _ = weights(scene, latents=2)
>>> maps(W, np.eye(2, dtype="f"), np.eye(2, dtype="f"), scene).max(axis=(1, 2)).round(3).tolist()
[1.0, 0.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.splat.scene import Scene, maps, read, weights

__all__ = ["Scene", "maps", "read", "weights"]

__getattr__ = lazily(__name__, {"Scene": ".scene", "maps": ".scene", "read": ".scene", "weights": ".scene"})
