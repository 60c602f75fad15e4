"""From file names to arrays of matching rows: activations, numpy files, a column of one of them, a table's columns."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input, usage

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def side(source: str) -> NDArray[Any]:
    """Rows of one side [N, D], or labels [N]: FILE, FILE:NAME for one tensor or column of it, or `-`.

    Raises BnError: exit 2 for a path that is not there or a name that must be given, 3 for what holds no numbers.
    """
    path, name = _split(source)
    if path.lower().endswith(_TABLES):
        if name is None:
            raise usage(f"{path} is a table, which column?", f"{path}:NAME, or --target NAME --rank")
        return columns(path, [name])[0][:, 0]
    from bntools.core.datasets.activations import open_activations

    with open_activations(path, None, integers=True) if name is None else _named(path, name) as rows:
        if name is not None and name in rows.columns:
            return rows.column(name)
        return rows.read(0, rows.rows)


def pair(x: NDArray[Any], y: NDArray[Any], drop_bad: bool) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Both sides, and how many rows were dropped for NaN or infinity in either."""
    if len(x) != len(y):
        raise bad_input(f"X has {len(x)} rows, Y has {len(y)}", "row i of both must be one observation")
    if not drop_bad:
        return x, y, 0
    good = np.ones(len(x), bool)
    for part in (x, y):
        if part.dtype.kind == "f":
            good &= np.isfinite(part.reshape(len(part), -1)).all(1)
    return x[good], y[good], int((~good).sum())


def columns(path: str, names: list[str] | None = None) -> tuple[NDArray[Any], list[str]]:
    """Numeric columns [N, C] of a table and their names; all of them if `names` is None."""
    from bntools.core.datasets.tables import open_table

    with open_table(path) as table:
        if names is None:
            text = set(table.text_columns)
            names = [name for name in table.names if name not in text]
        return np.stack([np.asarray(table.column(name), np.float64) for name in names], 1), names


def _split(source: str) -> tuple[str, str | None]:
    """FILE:NAME apart, unless a file has that whole name."""
    path, colon, name = source.rpartition(":")
    return (path, name) if colon and name and not os.path.exists(source) else (source, None)


def _named(path: str, name: str) -> Any:
    """Activations whose rows are the tensor of this name, or those of the file where it is a column beside them."""
    from bntools.core.datasets.activations import open_activations
    from bntools.core.errors import BnError

    try:
        rows = open_activations(path, None, integers=True)
    except BnError:
        return open_activations(path, name, integers=True)
    if name in rows.columns:
        return rows
    rows.close()
    return open_activations(path, name, integers=True)
