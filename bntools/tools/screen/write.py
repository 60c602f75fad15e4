"""The columns that passed, as a table that the next command reads."""

from __future__ import annotations

import json

import numpy as np

from bntools.core.artifact.writer import Writer
from bntools.core.datasets.tables import Table
from bntools.tools.screen.report import written
from bntools.tools.screen.run import Screening
from bntools.tools.screen.settings import Settings

TYPES = {"f4": "F32", "f8": "F64", "i8": "I64"}


def write(out: Writer, table: Table, settings: Settings, result: Screening) -> None:
    """Matrix `x` [rows, columns], best column first, and the target as a vector under its name.

    Names stand in the side file columns.json; those of classes, which are numbered, in metadata `bntools.classes`.
    """
    rows = written(settings, result)
    matrix = np.ascontiguousarray(result.best.values[rows].T)
    names = [table.name(int(position)) for position in result.best.positions[rows]]
    outcome = result.outcome
    target = (
        outcome.codes if outcome.classes else table.column(settings.target)[result.rows].astype(np.float64)
    )
    _add(out, "x" if settings.target != "x" else "columns", matrix)
    _add(out, settings.target, target)
    out.files["columns.json"] = json.dumps(names).encode()
    if outcome.classes:
        out.describe("classes", {settings.target: list(outcome.classes)})


def _add(out: Writer, name: str, array: np.ndarray) -> None:
    out.add_raw(
        name,
        TYPES[array.dtype.str[1:]],
        array.shape,
        np.ascontiguousarray(array).data.cast("B") if array.size else b"",
    )
