"""Columns of a table as fields, and a column as the outcome, with what cannot be one refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.tables import Table
from bntools.core.errors import bad_input, usage

_FEW = 32


def columns_of(
    table: Table, names: Sequence[str], drop: bool = True
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The columns of these names, and notes on fields that were dropped or look wrong.

    Raises BnError (exit 2 for a column that is not there, 3 for one that holds no identifiers).
    """
    columns, notes = {}, []
    for name in names:
        column = table.column(name)
        if len(column) != table.rows:
            raise bad_input(f"{table.label}: {name} has {len(column):,} rows", "is the file whole?")
        _check_ids(column, name)
        count = len(np.unique(column))
        if drop and count == 1:
            notes.append(f"{name} has one value and is left out")
            continue
        if count == len(column) > _FEW:
            notes.append(f"every row has its own {name}: it identifies rows and predicts nothing new")
        columns[name] = column
    if not columns:
        raise bad_input(f"{table.label} has no field of two values or more", "--fields A,B")
    return columns, notes


def _check_ids(column: NDArray[Any], name: str) -> None:
    if column.dtype.kind == "i" and len(column) and column.min() < 0:
        raise bad_input(
            f"{name} has negative ids ({column.min()})", "leave missing values empty, or write ids as text"
        )
    if column.dtype.kind == "f":
        known = np.unique(column[~np.isnan(column)])
        if len(known) > _FEW and (known != np.floor(known)).any():
            raise bad_input(f"{name} has {len(known):,} values that are no whole numbers: measurements, no ids",
                            "bin it first, or leave it out of --fields")  # fmt: skip
        if np.isinf(known).any():
            raise bad_input(f"{name} has infinite values", "leave them empty")


def outcome(
    column: NDArray[Any], name: str, at_least: float | None, task: str
) -> tuple[NDArray[np.float32], str]:
    """The outcome [N] and `binary` or `regression`; at_least makes 0/1 of numbers.

    Raises BnError (exit 3) for missing or textual outcomes, one class, or numbers that are not 0/1 unasked.
    """
    if column.dtype.kind not in "bif":
        raise bad_input(f"{name} holds text", "a target is a number, or 0/1")
    y = column.astype(np.float64)
    if not np.isfinite(y).all():
        raise bad_input(f"{name} is missing or infinite in {int((~np.isfinite(y)).sum()):,} rows",
                        "leave these rows out")  # fmt: skip
    if at_least is not None:
        if task == "regression":
            raise usage("--at-least makes classes, and the task is regression", "drop one of them")
        y = (y >= at_least).astype(np.float64)
    known = np.unique(y)
    binary = bool(np.isin(known, (0, 1)).all())
    if task == "regression":
        return y.astype(np.float32), task
    if not binary:
        shown = ", ".join(f"{v:g}" for v in known[:6])
        raise bad_input(f"{name} is not 0/1: {shown}{', ...' if len(known) > 6 else ''}",
                        f"--at-least {known[len(known) // 2]:g}, or --task regression")  # fmt: skip
    if len(known) < 2:
        raise bad_input(f"{name} has one class only", "choose another target, or another --at-least")
    return y.astype(np.float32), "binary"
