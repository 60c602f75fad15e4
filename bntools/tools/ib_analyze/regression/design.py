"""From a table to standardised rows for training, validation and test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.tables import Table
from bntools.core.errors import bad_input

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
FEWEST = 50


class Rows(NamedTuple):
    """x [N, P] and y [N] as the table has them, names [P]; rows of each of three parts; columns left out, by reason."""

    x: Floats
    y: Floats
    names: list[str]
    train: Indices
    validation: Indices
    test: Indices
    dropped: dict[str, int]


def read_rows(table: Table, target: str, seed: int) -> Rows:
    """All numeric columns that vary and are known on every row, the target apart; 64, 16 and 20 % of the rows.

    Raises BnError: exit 2 for a target that is not there, 3 for one that is text, not finite or constant, fewer than 50
    rows, or no column beside it.
    """
    place = table.position(target)
    column = table.column(target)
    if column.dtype.kind not in "fiub" or not np.isfinite(column.astype(np.float64)).all():
        raise bad_input(
            f"{table.label}: target {target} is not a number on every row", "leave those rows out"
        )
    y = column.astype(np.float64)
    if len(y) < FEWEST:
        raise bad_input(f"{table.label} has {len(y)} rows, at least {FEWEST} are needed")
    if np.ptp(y) == 0:
        raise bad_input(f"target {target} is {y[0]:g} on every row", "there is nothing to fit")
    blocks, positions, dropped = [], [], {"missing": 0, "constant": 0, "text": len(table.text_columns)}
    for block in table.blocks():
        values = block.values.astype(np.float64)
        known = np.isfinite(values).all(0)
        varying = np.ptp(np.where(known, values, 0), axis=0) > 0
        own = block.positions == place
        dropped["missing"] += int((~known & ~own).sum())
        dropped["constant"] += int((known & ~varying & ~own).sum())
        usable = known & varying & ~own
        blocks.append(values[:, usable])
        positions += block.positions[usable].tolist()
    if not positions:
        raise bad_input(f"{table.label} has no usable column beside {target}",
                        "constant columns and those with missing values are left out")  # fmt: skip
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    test, validation, train = np.split(order, [len(y) // 5, len(y) // 5 + (len(y) - len(y) // 5) // 5])
    names = [table.name(position) for position in positions]
    return Rows(np.hstack(blocks), y, names, np.sort(train), np.sort(validation), np.sort(test), dropped)
