"""The two ways in which columns of a table are there: values in memory, or a matrix in a file read by positions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input

Array = NDArray[Any]

STORED = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""numpy's types of the safetensors types that can be columns; bfloat16 as its bits."""
_CALL = 4096  # bytes whose transfer costs as much as the system call that reads them
_SLAB = 1 << 23  # bytes of whole rows read at once where single pieces would be too many


class Numbered(Sequence[str]):
    """Names `x.0`, `x.1`, ... of the columns of a matrix that has none, without a string for each."""

    def __init__(self, stem: str, count: int) -> None:
        self.stem, self._count = stem, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return f"{self.stem}.{index % self._count}"

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Position of a name; ValueError where it is none of them."""
        stem, _, number = str(value).rpartition(".")
        if stem != self.stem or not number.isdecimal() or str(int(number)) != number:
            raise ValueError(value)
        if not start <= int(number) < (self._count if stop is None else min(stop, self._count)):
            raise ValueError(value)
        return int(number)


class Part(Protocol):
    """Neighbouring columns of a table that are stored alike."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def rows(self) -> int: ...

    def kind(self, index: int) -> str:
        """`number`, `integer`, `boolean` or `text`."""
        ...

    def block(self, start: int, stop: int) -> Array:
        """Columns [rows, stop - start]."""
        ...

    def slab(self, start: int, stop: int) -> Array:
        """Rows [stop - start, columns]."""
        ...


class Values(NamedTuple):
    """One column in memory: values [rows] and what they are."""

    values: Array
    what: str
    names: Sequence[str]

    @property
    def rows(self) -> int:
        return len(self.values)

    def kind(self, index: int) -> str:
        return self.what

    def block(self, start: int, stop: int) -> Array:
        return self.values[:, None][:, start:stop]

    def slab(self, start: int, stop: int) -> Array:
        return self.values[start:stop, None]


class Layout(NamedTuple):
    """Where a matrix lies in a file: first byte, safetensors type, shape, and bytes from one row or column to the next.

    by_column: columns are contiguous rather than rows. step: bytes between two rows (columns).
    """

    offset: int
    dtype: str
    rows: int
    columns: int
    step: int
    by_column: bool = False
    swapped: bool = False  # the bytes of each number are big-endian


class Matrix:
    """Numeric columns in an open file; each byte is read when its column is asked for."""

    def __init__(
        self, fd: int, layout: Layout, names: Sequence[str], kinds: Sequence[str] | None = None
    ) -> None:
        self.fd, self.layout, self._kinds = fd, layout, kinds
        self.names, self.rows = names, layout.rows
        self._type = np.dtype(STORED[layout.dtype])
        if layout.swapped:
            self._type = self._type.newbyteorder(">")

    def kind(self, index: int) -> str:
        if self._kinds is not None:
            return self._kinds[index]
        if self.layout.dtype == "BOOL":
            return "boolean"
        return "number" if self._type.kind == "f" or self.layout.dtype == "BF16" else "integer"

    def block(self, start: int, stop: int) -> Array:
        return self._part(start, stop).T if self.layout.by_column else self._pieces(start, stop)

    def slab(self, start: int, stop: int) -> Array:
        return self._pieces(start, stop).T if self.layout.by_column else self._part(start, stop)

    def _part(self, start: int, stop: int) -> Array:
        """Lines `start` to `stop` along the contiguous axis: [lines, width]."""
        place, width = self.layout, self._width()
        if place.step == width * self._type.itemsize:
            data = self._read(place.offset + start * place.step, (stop - start) * width)
            return self._plain(data.reshape(stop - start, width))
        lines = [self._read(place.offset + i * place.step, width) for i in range(start, stop)]
        return self._plain(np.array(lines, self._type).reshape(stop - start, width))

    def _pieces(self, start: int, stop: int) -> Array:
        """Elements `start` to `stop` of every line: [lines, stop - start]."""
        place, item, width = self.layout, self._type.itemsize, self._width()
        lines = place.columns if place.by_column else place.rows
        if stop - start == width:
            return self._part(0, lines)
        result = np.empty((lines, stop - start), self._type)
        if (stop - start) * item + _CALL < place.step:
            for line in range(lines):
                result[line] = self._read(place.offset + line * place.step + start * item, stop - start)
            return self._plain(result)
        count = max(1, _SLAB // max(place.step, 1))
        for line in range(0, lines, count):
            end = min(line + count, lines)
            size = ((end - line - 1) * place.step + width * item) // item
            data = self._read(place.offset + line * place.step, size)
            whole = np.lib.stride_tricks.as_strided(data, (end - line, width), (place.step, item))
            result[line:end] = whole[:, start:stop]
        return self._plain(result)

    def _width(self) -> int:
        return self.layout.rows if self.layout.by_column else self.layout.columns

    def _read(self, position: int, count: int) -> Array:
        data = np.empty(count, self._type)
        view = data.view(np.uint8).data
        while view:
            got = os.preadv(self.fd, [view[: 1 << 30]], position)
            if got == 0:
                raise bad_input("truncated: the table ends inside a column", "was it fully written?")
            view, position = view[got:], position + got
        return data

    def _plain(self, data: Array) -> Array:
        """Native numbers: bfloat16 and float16 as float32."""
        if self.layout.dtype == "BF16":
            return (data.astype(np.uint32) << 16).view(np.float32)
        if self.layout.dtype == "F16":
            return data.astype(np.float32)
        return data.astype(self._type.newbyteorder("="), copy=False)
