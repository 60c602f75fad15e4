"""Screen every column of a table against one: a single pass, a block of columns in memory, the best ones kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.tables import Table
from bntools.core.errors import bad_input, usage
from bntools.core.progress import Progress
from bntools.tools.screen.outcome import Outcome, continuous, read_outcome
from bntools.tools.screen.scoring.linear import correlations
from bntools.tools.screen.scoring.score import Scored, Scorer, residual_outcome
from bntools.tools.screen.scoring.select import q_values, shadow_threshold
from bntools.tools.screen.settings import Settings

Array = NDArray[Any]
Floats = NDArray[np.float64]
_CELLS = 1 << 21  # numbers of a block: with its transpose and orders 60 MB


class Best(NamedTuple):
    """The best columns so far: positions [k] and values [k, n], n rows in the order of the table."""

    positions: NDArray[np.int64]
    values: Array


class Screening(NamedTuple):
    """What came out, for the columns at `positions` [p] of the table: scores, q-values, which are selected; Pearson's
    p-values beside them; `order` [p]: best first, columns without a score last."""

    outcome: Outcome
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    scored: Scored
    q: Floats
    selected: NDArray[np.bool_]
    linear: Floats
    order: NDArray[np.int64]
    best: Best


def screen(table: Table, settings: Settings, progress: Progress) -> Screening:
    """Score all numeric columns but the target and covariates. Raises BnError (exit 3) where none can be scored."""
    sweep = begin(table, settings)
    sweep.run(table, progress)
    return sweep.finish()


def begin(table: Table, settings: Settings) -> Sweep:
    """The outcome read and the null of all columns at hand, before the first column."""
    settings = settings.sized()
    outcome, rows, covariates = _outcome(table, settings)
    shuffled = np.random.default_rng([settings.seed, 0]).permutation(len(rows))
    outcome = outcome.at(shuffled)
    if covariates is not None:
        covariates = covariates[:, shuffled]
        if not outcome.classes:
            outcome = continuous(residual_outcome(outcome.values, covariates), None)
    scorer = Scorer(settings, outcome, covariates)
    return Sweep(scorer, rows, shuffled, _room(settings, len(rows)))


def _outcome(table: Table, settings: Settings) -> tuple[Outcome, NDArray[np.int64], Floats | None]:
    """The outcome and covariates on the rows where all of them are known."""
    column = table.column(settings.target)
    outcome, rows = read_outcome(column, table.kind(settings.target), settings.outcome, settings.target)
    if not settings.covariates:
        return outcome, rows, None
    for name in settings.covariates:
        if table.kind(name) == "text":
            raise usage(f"covariate {name} is text", "give its classes as columns of 0 and 1")
    values = np.stack([table.column(name).astype(np.float64)[rows] for name in settings.covariates])
    known = ~np.isnan(values).any(0)
    return outcome.subset(np.flatnonzero(known)), rows[known], values[:, known]


def _room(settings: Settings, rows: int) -> int:
    """Columns whose values are kept: those asked for, or n / ln n (Fan and Lv 2008)."""
    if settings.top is not None:
        return settings.top
    return default_top(rows) if settings.fdr is None else max(500, default_top(rows))


def default_top(rows: int) -> int:
    return max(1, int(rows / np.log(rows)))


class Sweep:
    """What is known after some blocks of columns."""

    def __init__(
        self, scorer: Scorer, rows: NDArray[np.int64], shuffled: NDArray[np.int64], room: int
    ) -> None:
        self.scorer, self.room, self.settings = scorer, room, scorer.settings
        self.rows = rows[shuffled]
        self.back = np.argsort(shuffled)
        self.positions: list[NDArray[np.int64]] = []
        self.parts: list[tuple[Scored, Floats, Floats]] = []
        self.best: list[tuple[Floats, NDArray[np.int64], Array]] = []  # keys to sort by, positions, values

    def run(self, table: Table, progress: Progress, within: range | None = None) -> None:
        """Score the columns at positions of `within`, or all of them."""
        settings, within = self.settings, range(len(table)) if within is None else within
        left_out = {table.position(name) for name in (settings.target, *settings.covariates)}
        with progress("columns", len(within)) as advance, ThreadPoolExecutor(settings.threads) as pool:
            for block in table.blocks(max(1, _CELLS // table.rows), within):
                chosen = np.array([position not in left_out for position in block.positions.tolist()], bool)
                values = block.values if chosen.all() else block.values[:, chosen]
                if chosen.any():
                    self.take(block.positions[chosen], values, pool)
                advance(len(block.positions))

    def take(self, positions: NDArray[np.int64], values: Array, pool: ThreadPoolExecutor) -> None:
        columns = _floating(values)[self.rows].T
        pieces = np.array_split(
            np.arange(len(positions)), min(len(positions), 4 * self.scorer.settings.threads) or 1
        )
        blocks = [np.ascontiguousarray(columns[piece[0] : piece[-1] + 1]) for piece in pieces if len(piece)]
        for piece, block, part in zip(pieces, blocks, pool.map(self._score, blocks), strict=False):
            self.positions.append(positions[piece])
            self.parts.append(part)
            self._keep(positions[piece], block, part[0])

    def _score(self, block: Array) -> tuple[Scored, Floats, Floats]:
        scored = self.scorer.score(block)
        linear = np.full(len(block), np.nan)
        usable = ~np.isnan(scored.score)
        linear[usable] = correlations(block[usable].astype(np.float64), self.scorer.outcome)[1]
        shadow = np.empty(0)
        if self.scorer.settings.control == "shadow":
            rng = np.random.default_rng([self.scorer.settings.seed, 4])
            shadow = self.scorer.shadow(block, rng.permutation(block.shape[1]))
        return scored, linear, shadow

    def _keep(self, positions: NDArray[np.int64], block: Array, scored: Scored) -> None:
        usable = np.flatnonzero(~np.isnan(scored.score))
        order = usable[_ranking(scored.p[usable], scored.score[usable], positions[usable])][: self.room]
        keys = np.stack([_keys(scored.p[order]), -scored.score[order], positions[order].astype(float)])
        self.best.append((keys, positions[order], block[order][:, self.back]))
        if len(self.best) > 8:
            self.best = [self.merged()]

    def merged(self) -> tuple[Floats, NDArray[np.int64], Array]:
        keys = np.hstack([keys for keys, _, _ in self.best])
        order = np.lexsort(keys[::-1])[: self.room]
        positions = np.concatenate([positions for _, positions, _ in self.best])
        return keys[:, order], positions[order], np.vstack([values for _, _, values in self.best])[order]

    def finish(self) -> Screening:
        settings = self.settings
        if not self.parts:
            raise bad_input(
                "the table has no numeric column beside the target", "is the right column the --target?"
            )
        scored = Scored(
            *(np.concatenate(fields) for fields in zip(*(part[0] for part in self.parts), strict=True))
        )
        if np.isnan(scored.score).all():
            raise bad_input(
                f"none of {len(scored.score):,} columns can be scored: all are constant or nearly all missing"
            )
        positions = np.concatenate(self.positions)
        q = q_values(scored.p, "by" if settings.control == "by" else "bh")
        selected = q <= settings.level
        if settings.control == "shadow":
            shadows = np.concatenate([part[2] for part in self.parts])
            threshold = shadow_threshold(scored.score, shadows, settings.level)
            selected = scored.score - shadows >= threshold
        linear = np.concatenate([part[1] for part in self.parts])
        order = _ranking(scored.p, scored.score, positions)
        _, best, values = self.merged()
        return Screening(
            self.scorer.outcome.at(self.back), np.sort(self.rows), positions, scored, q, selected, linear, order,
            Best(best, values) )  # fmt: skip


def _keys(p: Floats) -> Floats:
    """p-values as keys; without any, all columns are equal in them."""
    return np.nan_to_num(p, nan=2.0)


def _ranking(p: Floats, score: Floats, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order by p-value, then score, then place; columns without a score last."""
    missing = np.isnan(score)
    return np.lexsort((positions, -np.nan_to_num(score, nan=-np.inf), _keys(p), missing))


def _floating(values: Array) -> Array:
    if values.dtype.kind == "f":
        return values
    return values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
