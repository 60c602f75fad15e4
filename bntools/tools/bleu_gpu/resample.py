"""How sure a corpus score is: bootstrap intervals and paired comparison, from stored statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import bad_input

Score = Callable[[Tensor], Tensor]
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


def resampled(stats: Tensor, times: int, seed: int) -> Iterator[Tensor]:
    """Sums [n, columns] int64 of `times` corpora drawn with replacement from the rows of stats (Koehn 2004).

    The same seed draws the same rows from any statistics of as many rows, so systems stay paired.
    Memory: DRAWS, whatever the number of rows; one multinomial a corpus, which is the same distribution.
    """
    table = stats.to(torch.float64).numpy()
    source = np.random.default_rng(seed)
    rows = len(table)
    for _ in range(times):
        total = np.zeros(table.shape[1])
        for start in range(0, rows, DRAWS):
            drawn = source.integers(0, rows, min(DRAWS, rows - start), dtype=np.int32)
            total += np.bincount(drawn, minlength=rows) @ table  # exact: whole numbers below 2^53
        yield torch.from_numpy(total)


def interval(stats: Tensor, score: Score, times: int, seed: int) -> Interval:
    """Percentile bootstrap of a corpus score; value: the score of the corpus itself."""
    found = score(torch.stack([*resampled(stats, times, seed)])).numpy()
    low, high = np.quantile(found, [0.025, 0.975])
    value = float(score(stats.sum(0, keepdim=True).double())[0])
    return Interval(value, float(low), float(high))


def compare(stats: Tensor, baseline: Tensor, score: Score, times: int, seed: int) -> Comparison:
    """Paired bootstrap of score(stats) - score(baseline) (Koehn 2004), row for row the same sentences.

    p_value, two-sided: how often a resampled difference strays from its mean at least as far as the measured
    difference from 0, as sacrebleu has it. Raises BnError on tables of different length.
    """
    if stats.shape != baseline.shape:
        raise bad_input(
            f"{len(stats)} lines against {len(baseline)} of the baseline", "the same lines in the same order"
        )
    both = torch.cat([stats, baseline], 1)
    width = stats.shape[1]
    sums = torch.stack([*resampled(both, times, seed)])
    found = (score(sums[:, :width]) - score(sums[:, width:])).numpy()
    whole = both.sum(0, keepdim=True).double()
    value = float(score(whole[:, :width])[0] - score(whole[:, width:])[0])
    far = np.abs(found - found.mean()) >= abs(value)
    low, high = np.quantile(found, [0.025, 0.975])
    return Comparison(Interval(value, float(low), float(high)), float((far.sum() + 1) / (times + 1)))
