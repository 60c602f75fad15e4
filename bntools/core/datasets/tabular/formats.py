"""Readers of tables other than delimited text: safetensors, numpy, JSON and parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bntools.core.artifact.header import Entry
from bntools.core.artifact.reader import Artifact, parse_json
from bntools.core.datasets import numpy_files
from bntools.core.datasets.tables import Table
from bntools.core.datasets.tabular.parts import STORED, Array, Layout, Matrix, Numbered, Values
from bntools.core.errors import bad_input, require, usage

COLUMNS = "columns"
"""Metadata, with or without the prefix `bntools.`, or side file columns.json: a list of names."""
_CONVERT = "convert it: csv, or numpy.save(FILE, array)"
_KINDS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "U": "text", "S": "text"}


def manifest_path(head: bytes) -> str | None:
    """The path in a manifest of a written artifact; None for other JSON."""
    try:
        value = json.loads(head)
    except ValueError:
        return None
    path = value.get("path") if isinstance(value, dict) and value.get("bntools") == 1 else None
    return path if isinstance(path, str) else None


def _safetensors(fd: int, label: str, tensor: str | None) -> Table:
    artifact = Artifact(os.dup(fd), label)
    with artifact:
        entries = [artifact.entries[name] for name in artifact.names()]
        if tensor is not None and tensor not in artifact.entries:
            shown = ", ".join(entry.name for entry in entries[:8])
            raise usage(f"{label} has no tensor {tensor}", f"it has: {shown}")
        columns = _column_names(artifact)
        matrices = [e for e in entries if len(e.shape) == 2 and tensor in (None, e.name)]
        if columns and len(matrices) != 1:
            raise bad_input(f"{label} names columns but holds {len(matrices)} matrices", "one is needed")
        chosen = [entry for entry in entries if entry in matrices or len(entry.shape) == 1]
        parts = [_stored(fd, artifact, e, columns if e in matrices else None) for e in chosen]
    if not parts:
        raise bad_input(
            f"{label} holds no matrix and no vector", "a table is [rows, columns], or one vector a column"
        )
    named = artifact.json("bntools.classes", dict)
    if not all(isinstance(names, list) for names in named.values()):
        raise bad_input(f"metadata bntools.classes of {label} is no object of lists")
    classes = {name: list(map(str, names)) for name, names in named.items()}
    return Table(label, parts, [fd], classes)


def _stored(fd: int, artifact: Artifact, entry: Entry, columns: Sequence[str] | None) -> Matrix:
    if entry.dtype not in STORED:
        raise bad_input(f"tensor {entry.name} has type {entry.dtype}", "columns are real numbers")
    rows, width = entry.shape if len(entry.shape) == 2 else (entry.shape[0], 1)
    item = np.dtype(STORED[entry.dtype]).itemsize
    layout = Layout(artifact.header.size + entry.start, entry.dtype, rows, width, width * item)
    if columns is not None and len(columns) != width:
        raise bad_input(f"{len(columns):,} names of columns for the {width:,} columns of {entry.name}")
    names = columns or ([entry.name] if len(entry.shape) == 1 else Numbered(entry.name, width))
    return Matrix(fd, layout, names)


def _column_names(artifact: Artifact) -> list[str] | None:
    text = artifact.metadata.get(f"bntools.{COLUMNS}", artifact.metadata.get(COLUMNS))
    data = artifact.files.get(f"{COLUMNS}.json") if text is None else text
    if data is None:
        return None
    names = parse_json(data, list, f"{COLUMNS} of {artifact.label}")
    if not all(isinstance(name, str) for name in names):
        raise bad_input(f"{COLUMNS} of {artifact.label} are not all names")
    return names


def _npy(fd: int, label: str, tensor: str | None) -> Table:
    if tensor is not None:
        raise usage(f"{label} is one array without a name", "leave out --tensor")
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        shape, by_column, kind = numpy_files.read_header(file, os.fstat(fd).st_size, label)
        offset = file.tell()
    stored = {np.dtype(form): name for name, form in STORED.items() if name != "BF16"}
    dtype = stored.get(kind.newbyteorder("<") if kind.byteorder == ">" else kind)
    if dtype is None or len(shape) not in (1, 2):
        raise bad_input(
            f"{label} holds {kind} of shape {list(shape)}", "a table is real numbers [rows, columns]"
        )
    rows, width = shape if len(shape) == 2 else (shape[0], 1)
    by_column = by_column and len(shape) == 2
    step = (rows if by_column else width) * kind.itemsize
    layout = Layout(offset, dtype, rows, width, step, by_column, kind.byteorder == ">")
    return Table(label, [Matrix(fd, layout, Numbered("x", width))], [fd])


def _npz(fd: int, label: str, tensor: str | None) -> Table:
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        names = numpy_files.npz_names(file, label)
        if tensor is not None and tensor not in names:
            raise usage(f"{label} has no array {tensor}", f"it has: {', '.join(names[:8])}")
        arrays = numpy_files.read_npz(file, label)
    parts: list[Values] = []
    for name, array in arrays.items():
        if array.ndim == 1:
            parts.append(_values(array, name))
        elif array.ndim == 2 and tensor in (None, name):
            parts += [_values(array[:, i], f"{name}.{i}") for i in range(array.shape[1])]
    return Table(label, parts)


def _values(array: Array, name: str) -> Values:
    kind = _KINDS.get(array.dtype.kind)
    if kind is None:
        raise bad_input(f"column {name} holds {array.dtype}", "columns are numbers or text")
    return Values(array.astype(str).astype(object) if kind == "text" else array, kind, [name])


def _json(fd: int, label: str, tensor: str | None) -> Table:
    """Objects, one a line or in one array; a key that an object lacks is missing there."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        data = file.read()
    if data.lstrip()[:1] == b"[":
        records = parse_json(data, list, label)
    else:
        lines = [(i, line) for i, line in enumerate(data.split(b"\n"), 1) if line.strip()]
        records = [parse_json(line, dict, f"{label}: line {i}") for i, line in lines]
    if not all(isinstance(record, dict) for record in records):
        raise bad_input(f"{label} is no array of objects", "each row is an object: column to value")
    names = dict.fromkeys(key for record in records for key in record)
    return Table(label, [_column([record.get(name) for record in records], name) for name in names])


def _column(values: list[Any], name: str) -> Values:
    """JSON values as a column; null is missing."""
    types = {type(value) for value in values if value is not None}
    if types <= {bool} and types and None not in values:
        return Values(np.array(values, bool), "boolean", [name])
    if types <= {int, float, bool}:
        kind = "integer" if types <= {int, bool} else "number"
        return Values(np.array([np.nan if v is None else v for v in values], np.float64), kind, [name])
    if types <= {str, int, float, bool}:
        return Values(np.array(["" if v is None else str(v) for v in values], object), "text", [name])
    raise bad_input(f"column {name} holds lists or objects", "columns are numbers or text")


def _parquet(fd: int, label: str, tensor: str | None) -> Table:
    """Columns of a parquet file, through pyarrow."""
    parquet = require("pyarrow.parquet", "parquet")
    with os.fdopen(os.dup(fd), "rb") as file:
        try:
            table = parquet.read_table(file)
        except Exception as error:  # pyarrow raises its own families
            raise bad_input(f"{label} is no readable parquet file: {str(error)[:100]}", _CONVERT) from None
    return Table(label, [_arrow(table.column(i), str(name)) for i, name in enumerate(table.column_names)])


def _arrow(column: Any, name: str) -> Values:
    array = column.to_numpy() if column.null_count == 0 else None
    if array is not None and array.dtype.kind in "fiub":
        return _values(array, name)
    return _column(column.to_pylist(), name)


READERS: dict[str, Callable[[int, str, str | None], Table]] = {
    "safetensors": _safetensors, "npy": _npy, "zip": _npz, "json": _json, "parquet": _parquet,
}  # fmt: skip
