"""Pilot mixtures: landmarks of the simplex first, then each as far as can be from all before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.choose.simplex import Limits, candidates, landmarks

Floats = NDArray[np.floating[Any]]


def maximin(sources: int, count: int, limits: Limits | None = None, *, taken: Floats | None = None) -> Floats:
    """`count` mixtures [count, sources] by farthest points in Hellinger's distance, from the corners and the centre.

    taken: mixtures that are there already. Landmarks come before other points while they keep their distance.
    """
    pool = np.vstack([landmarks(sources), candidates(sources)])
    pool = (limits or Limits.none(sources)).applied(pool, None)
    marks = len(landmarks(sources))
    root = np.sqrt(pool)
    chosen: list[int] = []
    away = np.full(len(pool), np.inf)
    for p in taken if taken is not None else ():
        away = np.minimum(away, ((root - np.sqrt(p)) ** 2).sum(1))
    while len(chosen) < count:
        first = next((i for i in range(marks) if i not in chosen and away[i] > 1e-9), None)
        nearest = first if first is not None else int(np.argmax(away))
        chosen.append(nearest)
        away = np.minimum(away, ((root - root[nearest]) ** 2).sum(1))
    return pool[chosen]
