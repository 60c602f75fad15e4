"""The outcome: classes or ranks, and the rows where it is known, in an order that knows nothing of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage

Array = NDArray[Any]
_MOST_CLASSES = 20  # integers with more values than this are a quantity
FEWEST = 10
"""Rows needed for any statement."""


class Outcome(NamedTuple):
    """Codes or ranks [n] from 0 on, values [n] for methods that use them, names of the classes (none: continuous)."""

    codes: NDArray[np.int64]
    values: NDArray[np.float64]
    classes: tuple[str, ...] = ()

    def subset(self, rows: Array) -> Outcome:
        """The outcome on some rows, ranked anew."""
        if not self.classes:
            return continuous(self.values[rows], None)
        return Outcome(self.codes[rows], self.values[rows], self.classes)

    def at(self, order: Array) -> Outcome:
        """The same outcome with its rows in another order."""
        return Outcome(self.codes[order], self.values[order], self.classes)


def read_outcome(column: Array, kind: str, wanted: str, name: str) -> tuple[Outcome, NDArray[np.int64]]:
    """The outcome of a column, and the rows where it is known.

    kind: what the column holds; wanted: `auto`, `class` or `continuous`. Text, booleans and whole numbers of at most 20
    values are classes. Raises BnError: exit 3 for one class or value, or fewer than 10 rows; 2 for text as a quantity.
    """
    known = (
        ~np.isnan(column)
        if column.dtype.kind == "f"
        else np.array([value != "" for value in column.tolist()])
    )
    rows = np.flatnonzero(known)
    values = column[rows]
    if len(rows) < FEWEST:
        raise bad_input(f"target {name} is known on {len(rows)} rows, at least {FEWEST} are needed")
    levels = np.unique(values)
    if len(levels) == 1:
        raise bad_input(f"target {name} is {levels[0]} on every row", "nothing can be said about one class")
    whole = kind in ("text", "boolean") or (len(levels) <= _MOST_CLASSES and _are_whole(levels))
    if wanted == "continuous" and kind == "text":
        raise usage(f"target {name} is text, no quantity", "--outcome class")
    if wanted == "class" or (wanted == "auto" and whole):
        if len(levels) > len(rows) // 2:
            raise bad_input(
                f"target {name} has {len(levels)} classes on {len(rows)} rows", "--outcome continuous"
            )
        codes = np.searchsorted(levels, values)
        return Outcome(codes, codes.astype(np.float64), tuple(str(level) for level in levels)), rows
    return continuous(values.astype(np.float64), None), rows


def continuous(values: NDArray[np.float64], rng: np.random.Generator | None) -> Outcome:
    """Ranks of a quantity; equal values in the order of their rows, which are shuffled."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return Outcome(ranks, values)


def _are_whole(levels: Array) -> bool:
    return bool((levels == np.floor(levels.astype(np.float64))).all())
