"""The law of a statistic under independence: one set of random orders for all columns, and p-values from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

_BATCH = 2000
_TOP = 0.01  # share of the null whose exceedances the tail is fitted to
_COUNTED = 50  # values of the null beyond which a p-value is extrapolated: too few to count


class Null(NamedTuple):
    """Sorted values of a statistic under independence, and the exponential tail beyond `threshold`."""

    values: Scores
    threshold: float
    scale: float

    def p_values(self, scores: Scores) -> tuple[Scores, NDArray[np.bool_]]:
        """P of a value at least as large, and whether it was extrapolated beyond the permutations.

        The share of values >= s; beyond the 50th largest by an exponential fitted to the largest hundredth: the tail of
        information under independence falls faster than that, so that such p-values are on the safe side.
        """
        count = len(self.values)
        p = (1 + count - np.searchsorted(self.values, scores)) / (1 + count)
        far = max(1, int(_TOP * count))
        beyond = scores > self.values[-min(_COUNTED, far)]
        tail = far / count * np.exp(-np.maximum(scores - self.threshold, 0) / self.scale)
        p = np.where(beyond, np.minimum(tail, p.max(initial=1.0)), p)
        return np.where(np.isnan(scores), np.nan, p), beyond & ~np.isnan(scores)


def fit_null(values: Scores) -> Null:
    """The null law of these values, drawn under independence."""
    values = np.sort(values)
    top = values[-max(1, int(_TOP * len(values))) :]
    return Null(values, float(top[0]), float(max((top - top[0]).mean(), 1e-12)))


def permuted(
    score: Callable[[NDArray[np.int64]], Scores], n: int, rounds: int, rng: np.random.Generator
) -> Scores:
    """A statistic of `rounds` random orders of n rows."""
    sizes = [min(_BATCH, rounds - start) for start in range(0, rounds, _BATCH)]
    return np.concatenate([score(np.argsort(rng.random((size, n), np.float32), 1)) for size in sizes])
