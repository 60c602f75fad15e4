"""Pearson's correlation with a quantity, the correlation ratio with classes, and their p-values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.tools.screen.outcome import Outcome

Floats = NDArray[np.float64]


def correlations(columns: Floats, outcome: Outcome) -> tuple[Floats, Floats]:
    """r of each column [p, n] with the outcome (with more than two classes eta >= 0), and P under normal errors.

    NaN are left out. P: Student's t for r, Fisher's F for eta.
    """
    known = ~np.isnan(columns)
    n = known.sum(1).astype(float)
    filled = np.where(known, columns, 0)
    centred = np.where(known, filled - (filled.sum(1) / n)[:, None], 0)
    total = (centred**2).sum(1)
    if len(outcome.classes) > 2:
        return _ratio(centred, known, total, outcome)
    sums = known @ outcome.values
    spread = known @ outcome.values**2 - sums**2 / n
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip((centred @ outcome.values) / np.sqrt(total * spread), -1, 1)
        return r, _fisher(r**2, 1, n - 2)


def _ratio(
    centred: Floats, known: NDArray[np.bool_], total: Floats, outcome: Outcome
) -> tuple[Floats, Floats]:
    between = np.zeros(len(centred))
    groups = np.zeros(len(centred))
    for c in range(len(outcome.classes)):
        own = outcome.codes == c
        count = known[:, own].sum(1)
        between += np.where(count > 0, centred[:, own].sum(1) ** 2 / np.maximum(count, 1), 0)
        groups += count > 0
    share = np.clip(between / total, 0, 1)
    return np.sqrt(share), _fisher(share, groups - 1, known.sum(1) - groups)


def _fisher(share: Floats, above: Floats | int, below: Floats) -> Floats:
    from scipy.special import fdtrc

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (share / above) / ((1 - share) / below)
    return fdtrc(above, below, np.nan_to_num(ratio, posinf=1e300))
