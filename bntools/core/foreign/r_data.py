"""Data of R packages: the serialized objects in a pair Rdata.rdx and Rdata.rdb, and those that are tables.

R's binary format (R Internals, section 1.8; XDR, versions 2 and 3): a tree of items, each 4 bytes of flags with its
type in the lowest 8 bits. Only data are read; code, environments and external pointers are refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bntools.core.errors import bad_input

_NIL, _PAIRS, _SYMBOL, _CHARS, _LOGICAL, _INTEGER, _REAL, _TEXT, _LIST = 254, 2, 1, 9, 10, 13, 14, 16, 19
_REFERENCE, _ALTERNATIVE, _PERSISTENT, _GLOBAL = 255, 238, 247, 253
_NA_INTEGER = -(2**31)


class RObject(NamedTuple):
    """A value (numpy array, list of texts or list of objects) and its attributes."""

    value: Any
    attributes: dict[str, Any]


class _Reader:
    def __init__(self, data: bytes) -> None:
        if data[:2] != b"X\n":
            raise bad_input("no R object in binary XDR format")
        self.data, self.at, self.references = data, 2, []
        version = self._integer()
        self.at += 8
        if version not in (2, 3):
            raise bad_input(f"R's format {version} is not known, only 2 and 3")
        if version == 3:
            encoding = self._integer()
            self.at += encoding

    def _integer(self) -> int:
        self.at += 4
        return int(struct.unpack_from(">i", self.data, self.at - 4)[0])

    def _array(self, form: str, width: int) -> np.ndarray:
        count = self._integer()
        values = np.frombuffer(self.data, form, count, self.at)
        self.at += width * count
        return values.astype(values.dtype.newbyteorder("="))

    def item(self) -> Any:
        flags = self._integer()
        kind, has_attributes = flags & 255, bool(flags & 512)
        if kind in (_NIL, 242, 241, _GLOBAL, 251, 252):
            return None
        if kind == _REFERENCE:
            return self.references[(flags >> 8) - 1]
        if kind == _SYMBOL:
            self.references.append(self.item())
            return self.references[-1]
        if kind == _CHARS:
            return self._characters()
        if kind == _PAIRS:
            return self._pairs(flags)
        if kind == _PERSISTENT:
            self.at += 4
            self.references.append([self.item() for _ in range(self._integer())])
            return self.references[-1]
        if kind == _ALTERNATIVE:
            return self._alternative()
        value = self._vector(kind)
        return RObject(value, self.item() or {} if has_attributes else {})

    def _characters(self) -> str | None:
        length = self._integer()
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def _pairs(self, flags: int) -> dict[str, Any]:
        """A pair list as a dictionary; tags only, its own attributes are dropped."""
        result: dict[str, Any] = {}
        while flags & 255 == _PAIRS:
            if flags & 512:
                self.item()
            tag = self.item() if flags & 1024 else str(len(result))
            result[str(tag)] = self.item()
            flags = self._integer()
        if flags & 255 != _NIL:
            raise bad_input("an R pair list ends in something else")
        return result

    def _vector(self, kind: int) -> Any:
        if kind in (_LOGICAL, _INTEGER):
            values = self._array(">i4", 4)
            return (
                np.where(values == _NA_INTEGER, np.nan, values) if (values == _NA_INTEGER).any() else values
            )
        if kind == _REAL:
            return self._array(">f8", 8)
        if kind in (_TEXT, _LIST):
            return [self.item() for _ in range(self._integer())]
        raise bad_input(f"an R object of type {kind} is no data")

    def _alternative(self) -> RObject:
        """Compact sequences and wrapped vectors of version 3."""
        name, state, attributes = next(iter(self.item().values())), self.item(), self.item()
        if name in ("compact_intseq", "compact_realseq"):
            count, first, step = state.value
            return RObject(first + step * np.arange(int(count)), attributes or {})
        inner = state.value[0] if isinstance(state, RObject) else next(iter(state.values()))
        return inner if isinstance(inner, RObject) else RObject(inner, attributes or {})


def lazy_data(index: bytes, data: bytes) -> Iterator[tuple[str, RObject]]:
    """Names and objects of a package's data: `index` is Rdata.rdx, `data` Rdata.rdb.

    Each object: 4 bytes of length, then a zlib stream; others (type letters for bzip2 or xz) are refused.
    """
    index = zlib.decompress(index, 47)
    places = _Reader(index).item()
    variables = dict(zip(_names(places), places.value, strict=True))["variables"]
    for name, place in zip(_names(variables), variables.value, strict=True):
        offset, length = place.value.tolist()
        try:
            yield name, _Reader(zlib.decompress(data[int(offset) + 4 : int(offset + length)])).item()
        except zlib.error as error:
            raise bad_input(f"R object {name} cannot be decompressed: {error}") from None


def columns(thing: RObject) -> dict[str, list[Any]] | None:
    """A data frame, or a list of a matrix `x` and an outcome `y`, as columns; None for anything else."""
    classes = thing.attributes.get("class")
    if classes is not None and "data.frame" in classes.value:
        parts = dict(zip(_names(thing), thing.value, strict=True))
        if all(isinstance(part, RObject) and "dim" not in part.attributes for part in parts.values()):
            return {name: _values(part) for name, part in parts.items()}
        return None
    if not isinstance(thing.value, list) or sorted(_names(thing)) != ["x", "y"]:
        return None
    parts = dict(zip(_names(thing), thing.value, strict=True))
    shape = parts["x"].attributes.get("dim")
    if shape is None or len(shape.value) != 2:
        return None
    rows, width = (int(size) for size in shape.value)
    matrix = np.asarray(parts["x"].value).reshape(width, rows)
    labels = parts["x"].attributes.get("dimnames")
    names = (
        labels.value[1].value
        if labels is not None and labels.value[1] is not None
        else [f"x.{i}" for i in range(width)]
    )
    return {"y": _values(parts["y"]), **{name: row.tolist() for name, row in zip(names, matrix, strict=True)}}


def _names(thing: RObject) -> list[str]:
    names = thing.attributes.get("names")
    return [] if names is None else [str(name) for name in names.value]


def _values(part: RObject) -> list[Any]:
    """A column: the names of a factor's levels, None for missing."""
    levels = part.attributes.get("levels")
    values = part.value if isinstance(part.value, list) else part.value.tolist()
    if levels is not None:
        return [None if code != code else levels.value[int(code) - 1] for code in values]
    return [None if isinstance(value, float) and value != value else value for value in values]
