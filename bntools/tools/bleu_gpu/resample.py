"""How sure a corpus score is: bootstrap intervals and paired comparison, from stored statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input

Stats = NDArray[Any]
Score = Callable[[Stats], NDArray[np.float64]]
"""Statistics [n, 2 + 2 N] of n corpora to their scores [n]."""
DRAWS = 1 << 22
"""Lines drawn at a time: 4 bytes each."""


class Interval(NamedTuple):
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Difference of two systems on the same lines, and how often chance gives one as large."""

    difference: Interval
    p_value: float


def resampled(stats: Stats, times: int, seed: int) -> Iterator[Stats]:
    """Sums [n, columns] int64 of `times` corpora drawn with replacement from the rows of stats (Koehn 2004).

    The same seed draws the same rows from any statistics of as many rows, so systems stay paired.
    Memory: DRAWS, whatever the number of rows; one multinomial a corpus, which is the same distribution.
    """
    table = stats.astype(np.float64)
    source = np.random.default_rng(seed)
    rows = len(table)
    for _ in range(times):
        total = np.zeros(table.shape[1])
        for start in range(0, rows, DRAWS):
            drawn = source.integers(0, rows, min(DRAWS, rows - start), dtype=np.int32)
            total += np.bincount(drawn, minlength=rows) @ table  # exact: whole numbers below 2^53
        yield total


def interval(stats: Stats, score: Score, times: int, seed: int) -> Interval:
    """Percentile bootstrap of a corpus score; value: the score of the corpus itself."""
    scores = score(np.stack([*resampled(stats, times, seed)]))
    low, high = np.quantile(scores, [0.025, 0.975])
    value = float(score(stats.sum(0, dtype=np.int64, keepdims=True))[0])
    return Interval(value, float(low), float(high))


def compare(stats: Stats, baseline: Stats, score: Score, times: int, seed: int) -> Comparison:
    """Paired bootstrap of score(stats) - score(baseline) (Koehn 2004), row for row the same sentences.

    p_value, two-sided: how often a resampled difference strays from its mean at least as far as the measured
    difference from 0, as sacrebleu has it. Raises BnError on tables of different length.
    """
    if stats.shape != baseline.shape:
        raise bad_input(
            f"{len(stats)} lines against {len(baseline)} of the baseline", "the same lines in the same order"
        )
    both = np.hstack([stats, baseline])
    width = stats.shape[1]
    sums = np.stack([*resampled(both, times, seed)])
    differences = score(sums[:, :width]) - score(sums[:, width:])
    whole = both.sum(0, dtype=np.int64, keepdims=True)
    value = float(score(whole[:, :width])[0] - score(whole[:, width:])[0])
    far = np.abs(differences - differences.mean()) >= abs(value)
    low, high = np.quantile(differences, [0.025, 0.975])
    return Comparison(Interval(value, float(low), float(high)), float((far.sum() + 1) / (times + 1)))
