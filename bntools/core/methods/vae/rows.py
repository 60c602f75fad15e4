"""Rows of any shape, [N, D], [N, H, W] or [N, C, H, W], read in pieces from safetensors, numpy or IDX files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import streams
from bntools.core.artifact.reader import Artifact, parse_json
from bntools.core.datasets.activation_rows import StoredRows
from bntools.core.datasets.activations import Activations, open_activations
from bntools.core.datasets.activations_writer import INDEX
from bntools.core.errors import bad_input, usage

Floats = NDArray[np.float32]
Read = Callable[[int, int], NDArray[Any]]

_IDX_STEMS = {"train": "train-images", "test": "t10k-images"}
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_NUMBERS = ("F", "BF", "U", "I", "BOOL")
_HINT = "rows are points or images: a tensor x [rows, ...], an .npy file, a folder of IDX files"


class RowSource:
    """N rows of one shape, read as float32; bytes (uint8) are divided by 255, which `bytes` says.

    beside: other arrays with one entry a row, by name, such as labels or factors. facts, history: of the artifact.
    """

    def __init__(self, read: Read, rows: int, shape: tuple[int, ...], label: str) -> None:
        if rows < 1 or not shape or min(shape) < 1:
            raise bad_input(f"{label} holds no rows", _HINT)
        self._read, self.rows, self.shape, self.label = read, rows, shape, label
        self.bytes = False
        self.beside: dict[str, Callable[[], NDArray[Any]]] = {}
        self.facts: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []

    @property
    def width(self) -> int:
        """Numbers a row."""
        return int(np.prod(self.shape))

    def read(self, start: int, stop: int) -> Floats:
        """Rows start..stop, [stop - start, *shape], in memory of their own."""
        x = self._read(start, stop)
        x = np.array(x, np.float32).reshape(-1, *self.shape)
        return x / np.float32(255) if self.bytes else x


def open_rows(source: str, tensor: str | None = None, part: str = "train") -> RowSource:
    """Open rows by name: safetensors, .npy, .npz, a folder of IDX files or of activations, a manifest, or `-`.

    part: of a folder of IDX files, `train` or `test`. Raises BnError: exit 2 for a path that is not there or a tensor
    that must be named, 3 for damage, foreign formats and no rows.
    """
    if source != "-" and os.path.isdir(source):
        candidates = sorted(Path(source).glob(f"{_IDX_STEMS[part]}*"))
        if candidates:
            return _from_idx(candidates[0])
        files = sorted(Path(source).glob("*.safetensors"))
        if len(files) == 1 and not (Path(source) / INDEX).exists():
            return open_rows(str(files[0]), tensor, part)
        return _from_activations(open_activations(source, tensor, integers=True))
    label = "standard input" if source == "-" else source
    fd = streams.seekable(source)
    kind = streams.sniff(os.pread(fd, 64, 0))
    if kind == "safetensors":
        return _from_artifact(Artifact(fd, label, None if source == "-" else Path(source).absolute()), tensor)
    os.lseek(fd, 0, os.SEEK_SET)
    file = os.fdopen(fd, "rb")
    if kind == "json":
        value = parse_json(file.read(), dict, label)
        if value.get("bntools") == 1 and isinstance(value.get("path"), str):
            return open_rows(value["path"], tensor, part)
        raise bad_input(f"{label} is a JSON report where rows are expected", "pipe the tensors, not a report")
    if kind not in ("npy", "zip"):
        foreign = bad_input(f"{label} is neither safetensors, .npy nor .npz", _HINT)
        raise foreign if kind in ("gguf", "unknown") else streams.refuse(kind, label)
    return _from_numpy(file, kind, label, tensor)


def _from_artifact(artifact: Artifact, tensor: str | None) -> RowSource:
    entries = {name: artifact.entries[name] for name in artifact.names()}
    several = [n for n, e in entries.items() if len(e.shape) > 1 and e.dtype.startswith(_NUMBERS)]
    name = _choose(list(entries), several, tensor, artifact.label)
    entry = entries[name]
    shape = entry.shape[1:] or (1,)
    count = entry.shape[0] if entry.shape else 0
    source = RowSource(
        _strided(StoredRows(artifact, name, {}, reopen=False), shape), count, shape, artifact.label
    )
    source.bytes = entry.dtype == "U8"
    source.facts, source.history = artifact.json("bntools.activations", dict), artifact.history
    for other, e in entries.items():
        if other != name and e.shape[:1] == (count,):
            source.beside[other] = lambda other=other: artifact.tensor(other).numpy()
    return source


def _strided(stored: Any, shape: tuple[int, ...]) -> Read:
    """Whole rows of a shape from rows along its last axis."""
    inner = int(np.prod(shape[:-1]))
    return lambda start, stop: stored.read(start * inner, stop * inner)


def _from_numpy(file: Any, kind: str, label: str, tensor: str | None) -> RowSource:
    hint = "numpy.save(FILE, array) of numbers"
    try:
        if kind == "npy":
            if tensor is not None:
                raise usage(f"{label} is one array without a name", "leave out --tensor")
            arrays, name = {"x": _mapped(file)}, "x"
        else:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            name = _choose(list(arrays), [k for k, a in arrays.items() if a.ndim > 1], tensor, label)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise bad_input(f"{label} is no readable numpy file: {str(error)[:100]}", hint) from None
    array = arrays[name]
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise bad_input(
            f"{label}: array {name} is {array.dtype} {list(array.shape)}, not rows of numbers", hint
        )
    source = RowSource(lambda a, b: array[a:b], len(array), array.shape[1:] or (1,), label)
    source.bytes = array.dtype == np.uint8
    source.beside = {
        k: lambda v=v: v for k, v in arrays.items() if k != name and v.shape[:1] == (len(array),)
    }
    return source


def _mapped(file: Any) -> NDArray[Any]:
    """An array of an open descriptor, mapped."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _from_activations(rows: Activations) -> RowSource:
    source = RowSource(rows.read, rows.rows, (rows.width,), rows.label)
    source.facts, source.history = rows.facts, rows.history
    source.beside = {name: lambda name=name: rows.column(name) for name in rows.columns}
    return source


def _from_idx(path: Path) -> RowSource:
    """Images of an IDX file, mapped; a compressed one in memory."""
    from bntools.core.datasets.labelled import read_idx

    if path.suffix == ".gz":
        array: NDArray[Any] = read_idx(path)
    else:
        with open(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES:
                raise bad_input(f"{path} is not an IDX file")
            shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(head[3]))
        kind = np.dtype(_IDX_TYPES[head[2]])
        wanted = 4 + 4 * len(shape) + int(np.prod(shape, dtype=object)) * kind.itemsize
        if path.stat().st_size != wanted:
            raise bad_input(f"{path} has {path.stat().st_size} bytes, its header describes {wanted}")
        array = np.memmap(path, kind, "r", 4 + 4 * len(shape), shape)
    source = RowSource(lambda a, b: array[a:b], len(array), array.shape[1:] or (1,), str(path))
    source.bytes = array.dtype == np.uint8
    return source


def _choose(names: list[str], several: list[str], tensor: str | None, label: str) -> str:
    """The tensor asked for, else x, else the only one with an axis besides rows."""
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if tensor is not None:
        if tensor not in names:
            raise usage(f"{label} has no tensor {tensor}", f"it has: {shown}")
        return tensor
    if "x" in names:
        return "x"
    candidates = several or names
    if len(candidates) != 1:
        raise usage(f"{label} has {len(candidates)} tensors, which one?", f"--tensor NAME, of: {shown}")
    return candidates[0]
