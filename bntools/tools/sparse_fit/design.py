"""From a table to a standardised design and an outcome."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.tables import Table
from bntools.core.errors import bad_input, usage
from bntools.tools.sparse_fit.settings import Settings

Floats = NDArray[np.float64]
_FEWEST = 10
_MOST_BYTES = 8 << 30


class Design(NamedTuple):
    """Columns [p, n] centred with mean square 1, their means and spreads [p], names; outcome [n] and its family.

    classes: names of the outcomes 0 and 1 of a logistic fit. dropped: columns left out, by reason.
    """

    columns: Floats
    means: Floats
    spreads: Floats
    names: list[str]
    y: Floats
    family: str
    classes: tuple[str, ...]
    dropped: dict[str, int]
    rows_missing: int


def read_design(table: Table, settings: Settings) -> Design:
    """All numeric columns but the target. Columns with missing or infinite values and constant ones are left out.

    Raises BnError: exit 3 for an outcome that does not fit its family, fewer than 10 rows, no usable column; 2 for a
    table that does not go into memory.
    """
    y, family, classes, rows = _outcome(table, settings)
    if 8 * len(rows) * len(table) > _MOST_BYTES:
        raise usage(
            f"{len(table):,} columns of {len(rows):,} rows are {8e-9 * len(rows) * len(table):,.0f} GB",
            "bntools screen them first: bntools screen TABLE --target Y | bntools sparse-fit - --target Y",
        )
    target = table.position(settings.target)
    blocks, positions, dropped = [], [], {"missing": 0, "constant": 0, "text": len(table.text_columns)}
    dropped["text"] -= settings.target in table.text_columns
    for block in table.blocks():
        columns = block.values[rows].T.astype(np.float64)
        finite = np.isfinite(columns).all(1)
        varying = np.ptp(np.where(finite[:, None], columns, 0), 1) > 0
        own = block.positions == target
        dropped["missing"] += int((~finite & ~own).sum())
        dropped["constant"] += int((finite & ~varying & ~own).sum())
        usable = finite & varying & ~own
        blocks.append(columns[usable])
        positions.append(block.positions[usable])
    columns = np.vstack(blocks) if blocks else np.empty((0, len(rows)))
    if len(columns) == 0:
        raise bad_input(
            "no column can be used beside the target",
            "constant columns and those with missing values are left out",
        )
    means = columns.mean(1)
    columns -= means[:, None]
    spreads = np.sqrt((columns**2).mean(1))
    columns /= spreads[:, None]
    names = [table.name(int(position)) for position in np.concatenate(positions)]
    return Design(columns, means, spreads, names, y, family, classes, dropped, table.rows - len(rows))


def _outcome(table: Table, settings: Settings) -> tuple[Floats, str, tuple[str, ...], NDArray[np.int64]]:
    name = settings.target
    column = table.column(name)
    known = (
        np.isfinite(column)
        if column.dtype.kind == "f"
        else np.array([value != "" for value in column.tolist()])
    )
    rows = np.flatnonzero(known)
    if len(rows) < _FEWEST:
        raise bad_input(f"target {name} is known on {len(rows)} rows, at least {_FEWEST} are needed")
    values = column[rows]
    levels = np.unique(values)
    if len(levels) == 1:
        raise bad_input(f"target {name} is {levels[0]} on every row", "there is nothing to fit")
    family = settings.family
    if family == "auto":
        family = "logistic" if len(levels) == 2 or column.dtype.kind == "O" else "gaussian"
    if family == "logistic":
        if len(levels) > 2:
            raise bad_input(
                f"target {name} has {len(levels)} classes, logistic regression two",
                "make a column that is 1 for one class",
            )
        named = table.classes.get(name)
        classes = tuple(named[int(v)] if named else str(v) for v in levels)
        return np.searchsorted(levels, values).astype(float), family, classes, rows
    if column.dtype.kind == "O":
        raise bad_input(f"target {name} is text", "--family logistic")
    y = values.astype(np.float64)
    if family == "poisson" and ((y < 0).any() or (y != np.floor(y)).any()):
        raise bad_input(
            f"target {name} holds {y[(y < 0) | (y != np.floor(y))][0]:g}, no count", "--family gaussian"
        )
    return y, family, (), rows
