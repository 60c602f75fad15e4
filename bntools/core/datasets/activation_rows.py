"""Rows of one file: where they lie, and reading a range of them without the rest."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.datasets import numpy_files
from bntools.core.errors import bad_input, usage

MAIN = "x"
NAMES, NAMES_FILE = "names", "names.txt"
"""The column of one text a row, and the side file that holds it, a line a row."""
_NUMPY = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
    "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
    "BF16": np.uint16,
}  # fmt: skip
_PRECISION = {"F16": 2.0**-10, "BF16": 2.0**-7, "F32": 2.0**-23, "F64": 2.0**-52}
_NO_ROWS = frozenset({"model", "stack", "subspace", "network", "sae", "codes"})
_FLOATS = frozenset(_PRECISION)


class Place(NamedTuple):
    """Where a tensor lies: its stored type, byte offset in the file, and numbers a row."""

    dtype: str
    offset: int
    row: int

    def decode(self, data: bytes | bytearray, wanted: type | None = None) -> NDArray[Any]:
        """StoredRows bytes as an array in memory of its own; bfloat16 becomes float32."""
        values = np.frombuffer(data, _NUMPY[self.dtype])
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(wanted or values.dtype)


class Rows:
    """Rows [rows, width] of one file and the columns beside them."""

    label: str
    rows: int
    width: int
    precision: float
    columns: dict[str, Any]

    def close(self) -> None:
        raise NotImplementedError

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        raise NotImplementedError

    def column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        raise NotImplementedError


class StoredRows(Rows):
    """Rows of a safetensors file, read by position; a column called `names` lies in a side file, and in memory."""

    def __init__(self, artifact: Artifact, name: str, columns: dict[str, Place], reopen: bool) -> None:
        entry = artifact.entries[name]
        self.label, self._artifact = artifact.label, artifact
        self.width = entry.shape[-1] if len(entry.shape) > 1 else 1
        self.rows = entry.numel // self.width if self.width else 0
        self.precision = _PRECISION.get(entry.dtype, 0.0)
        self.columns: dict[str, Place | None] = dict(columns)
        self._place = Place(entry.dtype, artifact.header.size + entry.start, self.width)
        self._names = np.empty(0, str)
        if NAMES_FILE in artifact.files:
            lines = artifact.files[NAMES_FILE].decode("utf-8", "replace").split("\n")
            self._names = np.array((lines + [""] * self.rows)[: self.rows])
            self.columns[NAMES] = None
        self._path = artifact.path if reopen else None
        if self._path is not None:  # of hundreds of shards not all can be open
            artifact.close()

    def close(self) -> None:
        self._artifact.close()

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        values = self._place.decode(self._bytes(self._place, start, stop), np.float32)
        return values.reshape(stop - start, self.width)

    def column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        place = self.columns[name]
        if place is None:
            return self._names[start:stop]
        return place.decode(self._bytes(place, start, stop))

    def _bytes(self, place: Place, start: int, stop: int) -> bytearray:
        size = np.dtype(_NUMPY[place.dtype]).itemsize * place.row
        buffer = bytearray((stop - start) * size)
        position, view = place.offset + start * size, memoryview(buffer)
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC) if self._path else self._artifact.fd
        try:
            while view:
                count = os.preadv(fd, [view[: 1 << 30]], position)
                if count == 0:
                    raise bad_input(f"truncated: {self.label} ends inside its rows")
                view, position = view[count:], position + count
        finally:
            if self._path:
                os.close(fd)
        return buffer


class HeldRows(Rows):
    """Rows that numpy holds or maps, with the columns of the same file."""

    def __init__(self, array: NDArray[Any], columns: dict[str, NDArray[Any]], label: str) -> None:
        self.label, self._columns = label, columns
        self._array = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(-1, 1)
        self.rows, self.width = self._array.shape
        self.precision = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
        self.columns = dict.fromkeys(columns)

    def close(self) -> None:
        pass

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        return np.array(self._array[start:stop], np.float32, order="C")

    def column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return self._columns[name][start:stop]


def from_artifact(artifact: Artifact, tensor: str | None, integers: bool, reopen: bool = False) -> Rows:
    """The rows of an artifact of any kind. reopen: the file is open only while something is read from it."""
    if tensor is None and artifact.kind in _NO_ROWS:
        what = f"{artifact.label} is an artifact of kind {artifact.kind!r}, not activations"
        raise bad_input(what, "rows come from bntools embed, bntools record or numpy.save")
    entries = {name: artifact.entries[name] for name in artifact.names()}
    matrices = [n for n, e in entries.items() if len(e.shape) > 1 and (integers or e.dtype in _FLOATS)]
    name = _choose(list(entries), matrices, tensor, artifact.label)
    entry = entries[name]
    if entry.dtype not in (_NUMPY if integers else _FLOATS):
        raise bad_input(
            f"{artifact.label}: tensor {name} is {entry.dtype}, not floats", "rows are activations"
        )
    width = entry.shape[-1] if len(entry.shape) > 1 else 1
    count = entry.numel // max(width, 1)
    base = artifact.header.size
    columns = {
        other: Place(e.dtype, base + e.start, 1)
        for other, e in entries.items()
        if e.shape == (count,) and other != name and e.dtype in _NUMPY
    }
    return StoredRows(artifact, name, columns, reopen)


def from_numpy(file: Any, kind: str, label: str, tensor: str | None, integers: bool) -> Rows:
    """The rows of an open .npy, which is mapped, or .npz."""
    hint = "numpy.save(FILE, array) of floats"
    mapped = kind == "npy"
    arrays = {MAIN: numpy_files.map_npy(file, label)} if mapped else numpy_files.read_npz(file, label)
    if kind == "npy" and tensor not in (None, MAIN):
        raise usage(f"{label} is one array without a name", "leave out --tensor")
    allowed = "fiub" if integers else "f"
    matrices = [name for name, array in arrays.items() if array.ndim > 1 and array.dtype.kind in allowed]
    name = _choose(list(arrays), matrices, tensor, label)
    array = arrays[name]
    if array.dtype.kind not in allowed or array.ndim == 0:
        raise bad_input(
            f"{label}: array {name} is {array.dtype} {list(array.shape)}, not rows of floats", hint
        )
    count = array.size // max(array.shape[-1], 1) if array.ndim > 1 else len(array)
    columns = {
        k: v for k, v in arrays.items() if v.shape == (count,) and k != name and v.dtype.kind in "fiubU"
    }
    return HeldRows(array, columns, label)


def _choose(names: list[str], matrices: list[str], tensor: str | None, label: str) -> str:
    """The tensor asked for, else x, else the only matrix, else the only tensor."""
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if tensor is not None:
        if tensor not in names:
            raise usage(f"{label} has no tensor {tensor}", f"it has: {shown}")
        return tensor
    if MAIN in names:
        return MAIN
    candidates = matrices or names
    if len(candidates) != 1:
        raise usage(
            f"{label} has {len(candidates)} tensors, which one?",
            f"rows are named x, or are the only tensor; here: {shown}",
        )
    return candidates[0]


def natural(path: Path) -> list[Any]:
    """Sort key: digits as numbers, so that 10 stands behind 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name)]
