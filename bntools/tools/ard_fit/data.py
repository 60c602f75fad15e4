"""From rows to what is trained on: one pass that checks and measures, rows held out, batches in memory or from disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.methods.vae.rows import RowSource
from bntools.core.progress import Progress
from bntools.tools.ard_fit.settings import Settings

FEWEST_ROWS = 20
HELD_OUT_PART, MOST_HELD_OUT = 5, 4096
_CHUNK_BYTES = 1 << 25
_COVARIANCE_ROWS = 100_000
LARGEST_COVARIANCE = 2048
"""Columns up to which all principal components are taken; of more, the largest are, from held-out rows."""
_BUFFER_CHUNKS = 16


class Measured(NamedTuple):
    """Of finite rows: number, mean [D], variances [D], covariance [D, D] or None, range; and rows not finite."""

    rows: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    covariance: NDArray[np.float64] | None
    low: float
    high: float
    bad: int


class Data:
    """Rows ready for a network: (x - mean) / scale, flat ones in the order of their variance without constant columns.

    rows: trained on; memory: those, where they fit there. held_out: [h, *shape] of the network. mean [D], scale,
    columns: as in LatentModel. pad: margin added to images.
    """

    def __init__(self, source: RowSource, settings: Settings, flat: bool, progress: Progress) -> None:
        self.source, self.settings = source, settings
        self._chunk = max(1, _CHUNK_BYTES // (4 * source.width))
        measured = self._measure(progress)
        self.measured, self.bad = measured, measured.bad
        varying = np.flatnonzero(measured.variance > _smallest(measured))
        if not len(varying):
            raise bad_input(
                f"all {measured.rows} rows of {source.label} are the same", "is it the right tensor?"
            )
        self.constant = source.width - len(varying)
        self._frame(varying, flat)
        self.total = measured.rows
        self._held = self._draw()
        self.held_out = self._collect(self._held)
        self.rows = measured.rows - len(self._held)
        self.memory: Tensor | None = None
        if 4 * self.rows * int(np.prod(self.shape)) <= settings.memory:
            self.memory = torch.cat(list(self._chunks(range(0, source.rows, self._chunk))))

    def _frame(self, varying: NDArray[np.int64], flat: bool) -> None:
        """What rows look like to the network; the paper's sees them as they are, with a margin to a multiple of 16."""
        measured = self.measured
        self.mean, self.columns, self.pad, self.shape = (
            torch.zeros(self.source.width),
            None,
            0,
            self.source.shape,
        )
        self.scale = 1.0
        if self.settings.paper:
            side = self.source.shape[-1]
            self.pad = 0 if flat else -side % 16 // 2
            self.shape = (
                (*self.shape[:-2], *(n + 2 * self.pad for n in self.shape[-2:])) if self.pad else self.shape
            )
            return
        self.scale = float(np.sqrt(measured.variance[varying].mean()))
        self.mean = torch.from_numpy(measured.mean.astype(np.float32))
        if flat:
            order = varying[np.argsort(-measured.variance[varying], kind="stable")]
            self.columns, self.shape = torch.from_numpy(order), (len(order),)

    def _read(self, start: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finite rows of a chunk and their indices."""
        stop = min(start + self._chunk, self.source.rows)
        x = self.source.read(start, stop).reshape(stop - start, -1)
        finite = np.isfinite(x).all(1)
        index = np.arange(start, stop)
        return (x, index) if finite.all() else (x[finite], index[finite])

    def _measure(self, progress: Progress) -> Measured:
        """One pass over the rows, about the mean of the first chunk, so that a large mean costs no digits."""
        source, width = self.source, self.source.width
        square = np.zeros((width, width)) if width <= LARGEST_COVARIANCE else None
        total, squares, rows, bad, used = np.zeros(width), np.zeros(width), 0, 0, 0
        low, high, at_used = np.inf, -np.inf, total
        shift: NDArray[np.float32] | None = None
        self._good: list[NDArray[np.int64]] = []
        with progress("measure", source.rows) as step:
            for start in range(0, source.rows, self._chunk):
                x, index = self._read(start)
                bad += min(self._chunk, source.rows - start) - len(x)
                if bad and self.settings.bad == "raise":
                    first = np.setdiff1d(np.arange(start, start + self._chunk), index)[0]
                    what = f"{source.label}: row {first} holds NaN or infinity"
                    raise bad_input(what, "--drop-bad leaves such rows out")
                self._good.append(index)
                if not len(x):
                    continue
                low, high = min(low, float(x.min())), max(high, float(x.max()))
                shift = x.mean(0) if shift is None else shift
                x = x - shift
                total += x.sum(0, dtype=np.float64)
                squares += np.square(x, dtype=np.float64).sum(0)
                rows += len(x)
                if square is not None and used < _COVARIANCE_ROWS:
                    square += x.T @ x if x.size > 1 << 20 else x.T.astype(np.float64) @ x
                    used, at_used = rows, total.copy()
                step(self._chunk)
        if rows < FEWEST_ROWS or shift is None:
            raise bad_input(
                f"{source.label} has {rows} finite rows, too few", f"at least {FEWEST_ROWS} are needed"
            )
        mean = total / rows
        covariance = None
        if square is not None:
            about = at_used / used
            covariance = square / used - np.outer(about, about)
        return Measured(
            rows, mean + shift, np.maximum(squares / rows - mean**2, 0), covariance, low, high, bad
        )

    def _draw(self) -> NDArray[np.int64]:
        """Indices of the rows held out, ascending."""
        good = np.concatenate(self._good)
        count = min(max(len(good) // HELD_OUT_PART, 2), MOST_HELD_OUT)
        return np.sort(np.random.default_rng([self.settings.seed, 7]).choice(good, count, replace=False))

    def prepare(self, x: NDArray[np.float32]) -> Tensor:
        flat = (torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), -1))) - self.mean) / self.scale
        if self.pad:
            return torch.nn.functional.pad(flat.reshape(len(x), *self.source.shape), (self.pad,) * 4)
        return (flat if self.columns is None else flat[:, self.columns]).reshape(len(x), *self.shape)

    def _collect(self, index: NDArray[np.int64]) -> Tensor:
        parts = []
        for start in range(0, self.source.rows, self._chunk):
            wanted = index[(index >= start) & (index < start + self._chunk)]
            if len(wanted):
                x = self.source.read(start, min(start + self._chunk, self.source.rows))
                parts.append(self.prepare(x[wanted - start]))
        return torch.cat(parts)

    def _chunks(self, starts: Any) -> Iterator[Tensor]:
        """Training rows of the chunks that begin there."""
        for start in starts:
            x, index = self._read(start)
            mask = ~np.isin(index, self._held, assume_unique=True)
            if mask.any():
                yield self.prepare(x[mask])

    def covariance(self) -> NDArray[np.float64] | None:
        """Of the network's flat rows, where the columns are few enough."""
        if self.measured.covariance is None or self.pad:
            return None
        index = slice(None) if self.columns is None else self.columns.numpy()
        return self.measured.covariance[index][:, index] / self.scale**2

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """At most so many training rows, drawn without replacement; from disk, those of a few chunks."""
        if self.memory is None:
            starts = np.random.default_rng([seed, 8]).permutation(np.arange(0, self.source.rows, self._chunk))
            gathered: list[Tensor] = []
            for x in self._chunks(starts):
                gathered.append(x)
                if sum(map(len, gathered)) >= count:
                    break
            return torch.cat(gathered)[:count]
        order = torch.randperm(len(self.memory), generator=torch.Generator().manual_seed(seed))[:count]
        return self.memory[order]

    def batches(self, size: int, epoch: int, seed: int, left_out: Tensor | None = None) -> Iterator[Tensor]:
        """All training rows once, in an order of the epoch; rows too few for a batch wait for another epoch.

        left_out: indices of training rows in memory that are not to be seen.
        """
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        if self.memory is not None:
            order = torch.randperm(len(self.memory), generator=generator)
            if left_out is not None:
                mask = torch.ones(len(self.memory), dtype=torch.bool)
                mask[left_out] = False
                order = order[mask[order]]
            yield from (self.memory[rows] for rows in _whole(order, size))
            return
        starts = torch.arange(0, self.source.rows, self._chunk)
        starts = starts[torch.randperm(len(starts), generator=generator)].tolist()
        for at in range(0, len(starts), _BUFFER_CHUNKS):
            rows = torch.cat(list(self._chunks(starts[at : at + _BUFFER_CHUNKS])))
            yield from (rows[part] for part in _whole(torch.randperm(len(rows), generator=generator), size))

    def steps(self, size: int) -> int:
        """Batches an epoch, about."""
        return max(1, self.rows // min(size, self.rows))


def _whole(order: Tensor, size: int) -> list[Tensor]:
    parts = list(order.split(min(size, len(order))))
    return parts if len(parts) == 1 or len(parts[-1]) == len(parts[0]) else parts[:-1]


def _smallest(measured: Measured) -> NDArray[np.float64]:
    """Variance that float32's rounding of a constant makes."""
    return (np.abs(measured.mean) * 2.0**-22) ** 2
