"""The table as a problem to fit: target, fields, split, vocabulary of the training rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.tables import Table, open_table
from bntools.core.errors import bad_input, usage
from bntools.core.methods.embedding.fields import TableField, fit_fields, joined
from bntools.core.methods.embedding.inputs import columns_of, outcome
from bntools.kernels.embedding.hashing import Words, digests
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.training import Rows

Columns = dict[str, NDArray[Any]]


class Data(NamedTuple):
    """All rows: columns of the fields, outcomes, the column that orders or assigns the split, rows that must test."""

    columns: Columns
    y: NDArray[np.float32]
    order: NDArray[Any] | None
    test: int
    task: str
    notes: list[str]


class Problem(NamedTuple):
    """One split: rows as numbers of values, fields, digests of all values a field, unseen ones behind the others."""

    fields: list[TableField]
    digests: list[Words]
    train: Rows
    valid: Rows
    test: Rows
    task: str
    seed: int

    @property
    def values(self) -> int:
        """Values of all fields."""
        return sum(len(f.values) for f in self.fields)

    def sizes(self) -> list[tuple[int, int]]:
        """(values seen, all values) a field."""
        return [(len(f.values), len(d)) for f, d in zip(self.fields, self.digests, strict=True)]

    def coverage(self) -> list[float]:
        """Share of test rows whose value was seen in training, a field."""
        return [float((self.test.ids[:, t] < len(f.values)).mean()) for t, f in enumerate(self.fields)]


def read(table: Table, target: str, settings: Settings) -> Data:
    """Columns and outcomes of a table. Raises BnError (exit 3) for data that cannot be fitted."""
    if target not in table.names:
        names = ", ".join(table.names[:12]) + (", ..." if len(table) > 12 else "")
        raise bad_input(f"{table.label} has no column {target}", f"--target NAME, one of: {names}")
    kind, _, where = settings.split.partition(":")
    beside = {where} if kind in ("time", "column") else set()
    names = settings.fields or tuple(n for n in table.names if n != target and n not in beside)
    if target in names:
        raise usage(f"{target} is the target and a field", "leave it out of --fields")
    y, task = outcome(table.column(target), target, settings.at_least, settings.task)
    columns, notes = columns_of(table, names)
    order = table.column(where) if beside else None
    extra = 0
    if kind not in ("random", "time", "column"):
        with open_table(settings.split) as other:
            more, _ = columns_of(other, tuple(columns), drop=False)
            tail, _ = outcome(other.column(target), target, settings.at_least, task)
        extra = len(tail)
        columns = {name: _stacked(columns[name], more[name]) for name in columns}
        y = np.concatenate([y, tail])
    if settings.split == "random":
        notes += [
            f"{n} looks like a time: --split time:{n} tests on what comes later"
            for n in table.names
            if _time(table, n)
        ]
    if settings.model == "mf" and len(columns) != 2:
        raise usage(f"mf has two fields, and there are {len(columns)}", "--fields A,B, or --model fm")
    return Data(columns, y, order, extra, task, notes)


def _stacked(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    if first.dtype != second.dtype:
        first, second = (
            a if a.dtype.kind in "if" else np.array([str(x) for x in a.tolist()], object)
            for a in (first, second)
        )
        if "O" in (first.dtype.kind, second.dtype.kind):
            first, second = (
                first.astype(object).astype(str).astype(object),
                second.astype(object).astype(str).astype(object),
            )
    return np.concatenate([first, second])


def _time(table: Table, name: str) -> bool:
    if any(word in name.lower() for word in ("time", "date")):
        return True
    if table.kind(name) != "integer":
        return False
    head = next(table.batches(1000, [name]))[name].astype(np.float64)
    return bool(len(head) and np.nanmin(head) > 8e8 and np.nanmax(head) < 4e12 and len(np.unique(head)) > 10)


def parts_of(data: Data, settings: Settings, split: int) -> list[NDArray[np.int64]]:
    """Rows of train, validation and test: 80, 10 and 10 of a hundred unless the split says which."""
    rng = np.random.default_rng([settings.seed, split])
    count = len(data.y) - data.test
    kind = settings.split.partition(":")[0]
    if kind == "column":
        assert data.order is not None
        names = np.array([str(x) for x in data.order.tolist()])
        parts = [
            np.flatnonzero(np.isin(names, each)) for each in (("train",), ("valid", "validation"), ("test",))
        ]
    elif kind == "time":
        assert data.order is not None
        order = np.argsort(data.order, kind="stable")
        parts = np.split(order, [int(0.8 * count), int(0.9 * count)])
    else:
        order = rng.permutation(count)
        ends = [int(0.9 * count)] if data.test else [int(0.8 * count), int(0.9 * count)]
        parts = np.split(order, ends)
        if data.test:
            parts.append(np.arange(count, len(data.y)))
    for part, name in zip(parts, ("train", "validation", "test"), strict=True):
        if not len(part):
            raise bad_input(f"the split leaves no {name} rows", "more rows, or another --split")
    return parts


def problem(data: Data, settings: Settings, split: int) -> Problem:
    """Split number `split`, its vocabulary from its training rows."""
    parts = parts_of(data, settings, split)
    tables = [{name: column[part] for name, column in data.columns.items()} for part in parts]
    fields = fit_fields(tables[0])
    ids, unseen = joined(fields, tables)
    ys = [data.y[part] for part in parts]
    if data.task == "binary":
        for y, name in zip(ys, ("training", "validation", "test"), strict=True):
            if not 0 < y.mean() < 1:
                raise bad_input(f"the {name} rows are of one class only", "more rows, or another --split")
    words = [digests([*f.values, *new]) for f, new in zip(fields, unseen, strict=True)]
    train, valid, test = (Rows(np.ascontiguousarray(i), y) for i, y in zip(ids, ys, strict=True))
    return Problem(fields, words, train, valid, test, data.task, settings.seed * 1000 + split)


def synthetic_problem(
    fields: Sequence[TableField], rows: Sequence[Rows], task: str = "binary", seed: int = 0
) -> Problem:
    """A problem of rows that are numbers of values already."""
    return Problem(list(fields), [digests(f.values) for f in fields], rows[0], rows[1], rows[2], task, seed)
