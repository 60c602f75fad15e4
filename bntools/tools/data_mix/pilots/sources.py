"""Sources of training rows, and exact nested draws of a mixture from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.pilots.heads import Floats, Ints, Rows


class Source(NamedTuple):
    """A named pool of rows."""

    name: str
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows.y)


class Draw(NamedTuple):
    """Rows of a mixture: how many of each source [m], which of them, and how often the most used source is repeated."""

    counts: Ints
    rows: list[Ints]
    epochs: float


def exact_counts(weights: Floats, n: int) -> Ints:
    """How many of n rows each source gives: they add up to n, each within one of weight x n (largest remainders)."""
    share = np.asarray(weights, float) * n
    counts = np.floor(share + 1e-9).astype(np.int64)
    rest = n - int(counts.sum())
    counts[np.argsort(-(share - counts), kind="stable")[:rest]] += 1
    return counts


def draw(sizes: Sequence[int], weights: Floats, n: int, seed: int) -> Draw:
    """The first rows of a fixed order of every source.

    So a larger draw of the same seed holds the smaller one, and two mixtures share what they can: most of the noise
    of a difference between them, and of a slope in n, cancels. A source that is used up starts over.
    """
    counts = exact_counts(weights, n)
    rows = []
    for index, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        order = np.random.default_rng([seed, index]).permutation(size)
        rows.append(np.resize(order, count) if count else order[:0])
    return Draw(counts, rows, max(count / size for count, size in zip(counts, sizes, strict=True)))


def gathered(sources: Sequence[Source], drawn: Draw) -> Rows:
    """The drawn rows of all sources, source by source."""
    x = np.concatenate([s.rows.x[rows] for s, rows in zip(sources, drawn.rows, strict=True)])
    y = np.concatenate([s.rows.y[rows] for s, rows in zip(sources, drawn.rows, strict=True)])
    return Rows(x, y)


def standardised(sources: Sequence[Source], validation: Rows) -> tuple[list[Source], Rows]:
    """All features by one mean and spread: that of the sources, each counted alike."""
    mean = np.mean([s.rows.x.mean(0, dtype=np.float64) for s in sources], axis=0)
    square = np.mean([((s.rows.x - mean) ** 2).mean(0) for s in sources], axis=0)
    scale: NDArray[np.float64] = 1 / np.sqrt(np.maximum(square, 1e-12))

    def scaled(rows: Rows) -> Rows:
        return Rows((rows.x - mean) * scale, rows.y)

    return [Source(s.name, scaled(s.rows)) for s in sources], scaled(validation)
