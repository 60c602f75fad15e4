"""Delimited text as a table: which columns are numbers is seen from the values, and numbers go to a temporary file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bntools.core.artifact import streams
from bntools.core.datasets.tables import Table
from bntools.core.datasets.tabular.parts import Array, Layout, Matrix, Part, Values
from bntools.core.errors import bad_input

MISSING = dict.fromkeys(["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "."], "nan")
_CELLS = 1 << 20  # fields turned into numbers at once
_FIELD = 1 << 24  # characters of a field at most


class _Scan:
    """One reading of the file in which the columns of `text` are texts and the others numbers, as far as they are."""

    def __init__(self, width: int, text: set[int], target: int) -> None:
        self.width, self.text, self.target = width, text, target
        self.numbers = [i for i in range(width) if i not in text]
        self.fractional = np.zeros(len(self.numbers), bool)
        self.values: dict[int, list[str]] = {i: [] for i in text}
        self.rows = 0

    def take(self, rows: list[list[str]]) -> set[int]:
        """Keep these rows; the columns that turned out to be texts, in which case the file must be read again."""
        if self.numbers:
            plain = rows if not self.text else [[row[i] for i in self.numbers] for row in rows]
            matrix = _floats(plain)
            if isinstance(matrix, set):
                return {self.numbers[i] for i in matrix}
            with np.errstate(invalid="ignore"):
                self.fractional |= ((matrix != np.floor(matrix)) & ~np.isnan(matrix)).any(0)
            streams.write_all(self.target, matrix.data)
        for column, values in self.values.items():
            values += ["" if row[column] in MISSING else row[column] for row in rows]
        self.rows += len(rows)
        return set()

    def parts(self, names: Sequence[str]) -> list[Part]:
        """Columns in their order: runs of numbers as matrices in the temporary file, texts as values."""
        parts: list[Part] = []
        step = 8 * len(self.numbers)
        kinds = ["number" if fractional else "integer" for fractional in self.fractional.tolist()]
        column = first = 0
        while column < self.width:
            if column in self.text:
                values = np.array(self.values[column], object)
                parts.append(Values(values, "text", [names[column]]))
                column += 1
                continue
            stop = min((i for i in self.text if i > column), default=self.width)
            count = stop - column
            layout = Layout(8 * first, "F64", self.rows, count, step)
            run = names[column:stop] if count < self.width else names
            parts.append(Matrix(self.target, layout, run, kinds[first : first + count]))
            column, first = stop, first + count
        return parts


def read(fd: int, label: str) -> Table:
    """The table in a file of comma, tab or semicolon separated values.

    The first line names the columns, unless all of its fields are numbers: then they are x.0, x.1, ... A nameless
    column is called by its place likewise. Empty fields, NA, NaN, null, None and a single dot are missing.
    Raises BnError (exit 3) for a line with another number of fields, bytes that are not UTF-8, or no rows.
    """
    text: set[int] = set()
    while True:
        target = streams.temporary_fd()
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            with io.TextIOWrapper(io.FileIO(os.dup(fd)), encoding="utf-8-sig", newline="") as file:
                outcome = _scan(file, label, text, target)
        except UnicodeDecodeError:
            raise bad_input(f"{label} is not UTF-8 text", "convert it: iconv -f latin1 -t utf-8") from None
        except csv.Error as error:
            raise bad_input(f"{label} is no readable csv: {error}", "is it text?") from None
        if not isinstance(outcome, set):
            return Table(label, outcome, [target])
        os.close(target)
        text = text | outcome  # read again, with these as texts


def _scan(file: io.TextIOWrapper, label: str, text: set[int], target: int) -> list[Part] | set[int]:
    csv.field_size_limit(_FIELD)
    head = file.readline()
    file.seek(0)
    lines = csv.reader(file, delimiter=_delimiter(head))
    first = next((line for line in lines if line), None)
    if first is None:
        raise bad_input(f"{label} holds no lines", "was it fully written?")
    named = isinstance(_floats([first]), set)
    scan = _Scan(len(first), text, target)
    pending = [] if named else [first]
    for batch in _batched(lines, pending, len(first), label):
        if turned := scan.take(batch):
            return turned
    if not scan.rows:
        raise bad_input(f"{label} holds a line of names and no rows", "was it fully written?")
    return scan.parts([(name.strip() if named else "") or f"x.{i}" for i, name in enumerate(first)])


def _batched(lines: Any, pending: list[list[str]], width: int, label: str) -> Iterator[list[list[str]]]:
    size = max(1, _CELLS // width)
    for line in lines:
        if not line and width > 1:
            continue  # an empty line
        if len(line) != width:
            if not line:
                line = [""]
            else:
                raise bad_input(
                    f"{label}: line {lines.line_num} has {len(line)} fields, the first line {width}",
                    "fields that hold the separator stand in double quotes",
                )
        pending.append(line)
        if len(pending) >= size:
            yield pending
            pending = []
    if pending:
        yield pending


def _delimiter(head: str) -> str:
    """The separator that occurs most in the first line, outside of quotes."""
    bare = "".join(head.split('"')[::2])
    return max(",\t;", key=bare.count)


def _floats(rows: list[list[str]]) -> Array | set[int]:
    """Fields as float64 [rows, columns], or the columns that hold other things than numbers."""
    try:
        return np.array(rows, np.float64)
    except ValueError:
        pass
    rows = [[MISSING.get(field.strip(), field) for field in row] for row in rows]
    try:
        return np.array(rows, np.float64)
    except ValueError:
        return {i for i, column in enumerate(zip(*rows, strict=True)) if not all(map(_is_number, column))}


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
