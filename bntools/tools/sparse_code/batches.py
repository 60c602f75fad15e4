"""Rows for training: centred and scaled, outliers set aside, in random order from files larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.activations import Activations
from bntools.core.errors import bad_input

Floats = NDArray[np.float32]

BLOCK = 4096
"""Rows read at once, as they lie in the file."""
BUFFER_ROWS, BUFFER_BYTES = 65_536, 256 << 20
"""Rows among which batches are drawn, at most: the smaller of the two."""
_SAMPLE = 262_144
_WEISZFELD_ROWS, _WEISZFELD_STEPS = 8192, 64


class Norm(NamedTuple):
    """x' = (x - mean) / scale; rows longer than `limit` are outliers; rows: N of those that are none."""

    mean: Floats
    scale: float
    limit: float
    rows: int
    outliers: int
    bad: int

    def apply(self, x: Floats) -> Floats:
        return (x - self.mean) * np.float32(1 / self.scale)

    def ordinary(self, x: Floats) -> NDArray[np.bool_]:
        """Which rows are finite and no outliers."""
        with np.errstate(invalid="ignore", over="ignore"):
            return lengths(x) <= self.limit


class Cursor(NamedTuple):
    """Where a run is in its data: pass, group of blocks within it, batch within that."""

    epoch: int = 0
    group: int = 0
    batch: int = 0


START = Cursor()


def lengths(x: Floats) -> Floats:
    return np.sqrt(np.einsum("nd,nd->n", x, x))


def measure(
    source: Activations, rows: int, *, outliers: float, center: str, bad: str,
    step: Callable[[int], None] = lambda count: None,
) -> Norm:  # fmt: skip
    """Mean and scale of the first `rows` rows, without those over `outliers` times the median length.

    Sums in float64, a block at a time; the median from 262,144 rows spread over all. center: mean, median (geometric,
    Weiszfeld's iteration on 8,192 rows) or none. Raises BnError (exit 3): rows with NaN or infinity unless bad is
    `drop`, all rows equal.
    """
    starts = range(0, rows, BLOCK)
    every = max(1, rows // _SAMPLE)
    sample = np.concatenate([lengths(source.read(a, min(a + BLOCK, rows))) for a in starts[::every]])
    sample = sample[np.isfinite(sample)]
    middle = float(np.median(sample)) if len(sample) else 0.0
    limit = outliers * middle if outliers and middle else float(np.finfo(np.float32).max)
    total, square, used, wrong = np.zeros(source.width), 0.0, 0, 0
    first_wrong = -1
    shift = None
    for a in starts:
        x = source.read(a, min(a + BLOCK, rows))
        finite = np.isfinite(x).all(1)
        if not finite.all():
            first_wrong = a + int(np.argmin(finite)) if first_wrong < 0 else first_wrong
            wrong += int((~finite).sum())
            x = x[finite]
        x = x[lengths(x) <= limit]
        if shift is None and len(x):
            shift = x.mean(0)  # sums about a point near the mean lose no digits
        if len(x):
            x = x - shift
            total += x.sum(0, dtype=np.float64)
            square += float(np.einsum("nd,nd->", x, x, dtype=np.float64, optimize=True))
            used += len(x)
        step(len(finite))
    if wrong and bad != "drop":
        what = f"{source.label}: {wrong} rows of {rows} hold NaN or infinity, the first is row {first_wrong}"
        raise bad_input(what, "--drop-bad leaves them out")
    if used == 0 or shift is None:
        raise bad_input(f"{source.label}: no row is left to train on", "--outliers 0 keeps long ones")
    mean = total / used + shift
    variance = max(square / used - float(np.square(mean - shift).sum()), 0.0)
    if center == "none":
        variance, mean = variance + float(np.square(mean).sum()), np.zeros_like(mean)
    elif center == "median":
        middle_point = _geometric_median(source, rows, limit)
        variance, mean = variance + float(np.square(mean - middle_point).sum()), middle_point
    scale = float(np.sqrt(variance / source.width))
    if not scale > 1e-12 * (middle or 1.0):
        raise bad_input(f"{source.label}: all rows are equal", "is it the right tensor? see --tensor")
    return Norm(mean.astype(np.float32), scale, limit, used, rows - used - wrong, wrong)


def _geometric_median(source: Activations, rows: int, limit: float) -> NDArray[np.float64]:
    """The point of the least sum of distances to 8,192 rows: y <- sum(x / |x - y|) / sum(1 / |x - y|)."""
    count = min(rows, _WEISZFELD_ROWS)
    x = np.concatenate([source.read(rows * i // 8, rows * i // 8 + count // 8) for i in range(8)]).astype(
        np.float64
    )
    x = x[np.linalg.norm(x, axis=1) <= limit]
    y = x.mean(0)
    for _ in range(_WEISZFELD_STEPS):
        weight = 1 / np.maximum(np.linalg.norm(x - y, axis=1), 1e-12)
        y, before = weight @ x / weight.sum(), y
        if np.linalg.norm(y - before) < 1e-7 * np.linalg.norm(y):
            break
    return y


class Batches:
    """Batches [B, d] of normalised rows, without end; the same seed and cursor give the same rows.

    In every pass blocks of 4,096 rows come in a new random order, and rows are drawn from as many blocks as the buffer
    holds. What does not fill a last batch of the buffer is left out of that pass.
    """

    def __init__(self, source: Activations, norm: Norm, rows: int, batch: int, seed: int) -> None:
        self.source, self.norm, self.rows, self.batch, self.seed = source, norm, rows, batch, seed
        blocks = min(BUFFER_ROWS, max(BUFFER_BYTES // (4 * source.width), batch)) // BLOCK
        self.blocks = max(1, blocks)

    def __call__(self, cursor: Cursor = START) -> Iterator[tuple[Cursor, Floats]]:
        """From a cursor on: (the cursor behind it, batch)."""
        epoch, group, first = cursor
        held: Floats | None = None
        while True:
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(-(-self.rows // BLOCK))
            groups = [order[a : a + self.blocks] for a in range(0, len(order), self.blocks)]
            if len(groups) > 1 and len(groups[-1]) * BLOCK < self.batch:
                groups[-2:] = [np.concatenate(groups[-2:])]
            for number in range(group, len(groups)):
                if held is None or len(groups) > 1:
                    held = None  # freed before the next is read
                    held = self._read(np.sort(groups[number]))
                rows = np.random.default_rng([self.seed, 2, epoch, number]).permutation(len(held))
                size = min(self.batch, len(held))
                last = len(held) // size
                for index in range(first, last):
                    following = (
                        Cursor(epoch, number, index + 1) if index + 1 < last else Cursor(epoch, number + 1, 0)
                    )
                    yield following, held[rows[index * size : (index + 1) * size]]
                first = 0
            epoch, group = epoch + 1, 0

    def _read(self, blocks: NDArray[np.int64]) -> Floats:
        pieces = np.empty((len(blocks) * BLOCK, self.source.width), np.float32)
        end = 0
        for block in blocks:
            x = self.source.read(int(block) * BLOCK, min((int(block) + 1) * BLOCK, self.rows))
            x = x[self.norm.ordinary(x)]
            pieces[end : end + len(x)] = self.norm.apply(x)
            end += len(x)
        return pieces[:end]
