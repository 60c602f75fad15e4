"""Tables: named columns from csv, JSON lines, parquet, .npy, .npz and safetensors, wider or longer than memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import streams
from bntools.core.datasets.tabular.parts import Part
from bntools.core.errors import bad_input, usage

Array = NDArray[Any]

_CELLS = 1 << 22  # numbers in a block or batch where no size is asked for
_MANIFEST = 1 << 20  # bytes of a manifest at most: a report may be in it
_HINT = "a table is csv, JSON lines, parquet, .npy, .npz or safetensors"


class Block(NamedTuple):
    """Numeric columns next to each other: their positions in the table [k] and values [rows, k].

    Booleans are 0 and 1; a missing value is NaN.
    """

    positions: NDArray[np.int64]
    values: Array


class Table:
    """Named columns of equal length. Columns of wide matrices stay in their file until they are asked for."""

    def __init__(
        self,
        label: str,
        parts: Sequence[Part],
        fds: Sequence[int] = (),
        classes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.label = label
        self.classes = dict(classes or {})
        """Names of the classes 0, 1, ... of columns that hold such numbers, where the file tells them."""
        self._parts = [part for part in parts if len(part.names)]
        self._fds = list(fds)
        if not self._parts:
            raise bad_input(f"{label} holds no columns", _HINT)
        self.rows = self._parts[0].rows
        for part in self._parts:
            if part.rows != self.rows:
                raise bad_input(
                    f"{label}: {part.names[0]} has {part.rows:,} rows, {self._parts[0].names[0]} {self.rows:,}",
                    "all columns of a table have the same length",
                )
        self._starts = np.cumsum([0, *(len(part.names) for part in self._parts)])
        self._text = {self._starts[i] for i, part in enumerate(self._parts) if part.kind(0) == "text"}
        self._check_names()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def reads(self, fd: int) -> bool:
        """Whether columns are still to be read from this descriptor."""
        return fd in self._fds

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of columns."""
        return int(self._starts[-1])

    def name(self, position: int) -> str:
        part, index = self._at(position)
        return part.names[index]

    @property
    def names(self) -> list[str]:
        """All names, in order."""
        return [name for part in self._parts for name in part.names]

    def position(self, name: str) -> int:
        """Where a column stands, by its name, or by a number where no column has that name.

        Raises BnError (exit 2) for a column that is not there.
        """
        for start, part in zip(self._starts, self._parts, strict=False):
            try:
                return int(start) + part.names.index(name)
            except ValueError:
                continue
        if name.isdecimal() and int(name) < len(self):
            return int(name)
        shown = ", ".join(self.name(i) for i in range(min(8, len(self)))) + (", ..." if len(self) > 8 else "")
        raise usage(f"{self.label} has no column {name}", f"it has: {shown}")

    def kind(self, name: str) -> str:
        """`number`, `integer`, `boolean` or `text`."""
        part, index = self._at(self.position(name))
        return part.kind(index)

    def column(self, name: str) -> Array:
        """One column [rows]: float64 with NaN for missing, int64, bool, or str objects with "" for missing."""
        part, index = self._at(self.position(name))
        values = part.block(index, index + 1)[:, 0]
        kind = part.kind(index)
        if kind == "integer" and values.dtype.kind == "f" and np.isfinite(values).all():
            return values.astype(np.int64)
        if kind in ("integer", "number"):
            return values.astype(np.int64 if values.dtype.kind in "iu" else np.float64)
        return values

    def missing(self, name: str) -> int:
        """How many values of a column are missing: NaN, or an empty text."""
        values = self.column(name)
        if values.dtype.kind == "f":
            return int(np.isnan(values).sum())
        return int((values == "").sum()) if values.dtype.kind == "O" else 0

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns that are no numbers; `blocks` leaves them out."""
        return [self.name(int(position)) for position in sorted(self._text)]

    def blocks(self, columns: int | None = None, within: range | None = None) -> Iterator[Block]:
        """All numeric columns at positions of `within`, `columns` of them at a time, each read once, without text."""
        width = columns or max(1, _CELLS // max(self.rows, 1))
        within = range(len(self)) if within is None else within
        waiting: list[tuple[int, Array]] = []  # single columns are put together
        for start, part in zip(self._starts, self._parts, strict=False):
            if int(start) in self._text:
                continue
            first, last = max(0, within.start - int(start)), min(len(part.names), within.stop - int(start))
            for index in range(first, last, width):
                stop = min(index + width, last)
                waiting.append((int(start) + index, _numbers(part.block(index, stop))))
                if sum(values.shape[1] for _, values in waiting) >= width:
                    yield _joined(waiting)
                    waiting = []
        if waiting:
            yield _joined(waiting)

    def batches(
        self, size: int | None = None, names: Sequence[str] | None = None
    ) -> Iterator[dict[str, Array]]:
        """Rows, `size` of them at a time: the columns of these names (all of them) by name."""
        size = size or max(1, _CELLS // len(self))
        chosen = [self._at(self.position(name)) for name in (self.names if names is None else names)]
        for start in range(0, self.rows, size):
            stop, slabs, batch = min(start + size, self.rows), {}, {}
            for part, index in chosen:
                if id(part) not in slabs:
                    slabs[id(part)] = part.slab(start, stop)
                batch[part.names[index]] = slabs[id(part)][:, index]
            yield batch

    def _at(self, position: int) -> tuple[Part, int]:
        which = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._parts[which], position - int(self._starts[which])

    def _check_names(self) -> None:
        if len(self._parts) == 1 and not isinstance(self._parts[0].names, (list, tuple)):
            return  # numbered: distinct without looking
        names = self.names
        if len(set(names)) == len(names):
            return
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise bad_input(
            f"{self.label}: a column named {twice!r} stands twice", "give columns names of their own"
        )


def open_table(source: str, tensor: str | None = None) -> Table:
    """The table that a file holds, told apart by its first bytes; `-` is standard input, a manifest is followed.

    csv (also with tabs or semicolons; the first line names the columns unless it is all numbers), JSON lines or an
    array of objects, parquet (needs pyarrow), .npy and .npz, safetensors: a matrix [rows, columns], its names in the
    side file or metadata `columns` as a JSON list, and vectors as further columns. tensor: the only matrix to read.
    Raises BnError: exit 2 for a file that cannot be opened, 3 for damage and foreign formats, 5 without pyarrow.
    """
    label = "standard input" if source == "-" else source
    fd = _open(source)
    owned = False
    try:
        table = _read(fd, label, tensor)
        owned = table.reads(fd)
        return table
    finally:
        if not owned:
            os.close(fd)


def _read(fd: int, label: str, tensor: str | None) -> Table:
    from bntools.core.datasets.tabular import delimited, formats

    head = os.pread(fd, 4096, 0)
    kind = "parquet" if head.startswith(b"PAR1") else streams.sniff(head)
    if kind == "unknown" and b"\0" not in head:
        return delimited.read(fd, label)
    if kind == "json" and (path := formats.manifest_path(os.pread(fd, _MANIFEST, 0))):
        return open_table(path, tensor)
    reader = formats.READERS.get(kind)
    if reader is None:
        raise bad_input(f"{label} is no table", _HINT) if kind == "unknown" else streams.refuse(kind, label)
    return reader(fd, label, tensor)


def _open(source: str) -> int:
    try:
        fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise usage(f"cannot open {source}: {error.strerror}", "check the path") from None
    if streams.is_regular(fd):
        return fd
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        os.close(fd)
        raise usage(f"{source} is a directory", "name a file")
    try:
        return streams.spool(fd)
    finally:
        os.close(fd)


def _numbers(values: Array) -> Array:
    return values.astype(np.float32) if values.dtype.kind == "b" else values


def _joined(waiting: list[tuple[int, Array]]) -> Block:
    positions = np.concatenate([np.arange(start, start + values.shape[1]) for start, values in waiting])
    return Block(positions, waiting[0][1] if len(waiting) == 1 else np.hstack([v for _, v in waiting]))
