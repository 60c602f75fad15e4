"""Which columns to select at a false discovery rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def q_values(p: Floats, control: str = "bh") -> Floats:
    """Adjusted p-values of Benjamini and Hochberg, or of Benjamini and Yekutieli (`by`: any dependence); NaN stays."""
    known = np.flatnonzero(~np.isnan(p))
    count = len(known)
    order = known[np.argsort(p[known], kind="stable")]
    factor = (1 / np.arange(1, count + 1)).sum() if control == "by" else 1.0
    scaled = p[order] * count * factor / np.arange(1, count + 1)
    q = np.full(len(p), np.nan)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return q


def shadow_threshold(scores: Floats, shadows: Floats, level: float) -> float:
    """Smallest t > 0 with (1 + #{w <= -t}) / #{w >= t} <= level for w = score - shadow; infinity where there is none.

    The threshold of knock-offs (Barber and Candes 2015) with a permuted copy as the knock-off: it holds where columns
    that say nothing are as likely above their copy as below.
    """
    w = scores - shadows
    sizes = np.sort(np.abs(w[~np.isnan(w) & (w != 0)]))
    ordered = np.sort(w[~np.isnan(w)])
    below = np.searchsorted(ordered, -sizes, side="right")
    above = len(ordered) - np.searchsorted(ordered, sizes, side="left")
    good = (1 + below) <= level * np.maximum(above, 1)
    return float(sizes[good][0]) if good.any() else np.inf
