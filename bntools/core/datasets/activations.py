"""Activations of a network as an artifact: rows x [N, d] with a few columns beside them, in one file or in shards.

The kind is `activations` (bntools-activations(5)). `open_activations` reads it from a file, a folder of shards, a
stream or a numpy file, in pieces of any size; `write_activations` and `ActivationsWriter` write it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import streams
from bntools.core.artifact.reader import Artifact, open_path, parse_json
from bntools.core.datasets.activation_rows import Rows, from_artifact, from_numpy, natural
from bntools.core.datasets.activations_writer import INDEX, ActivationsWriter
from bntools.core.errors import bad_input, usage

_CONVERT = "convert it: numpy.save(FILE, array), or a .safetensors file with a tensor x [rows, width]"

Floats = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]


class Activations:
    """N rows of width d, read in pieces: memory holds what is asked for, whatever the size of the files.

    rows, width: N and d. facts: what `bntools.activations` says of them {model, sha256, site, layer, ...}, empty for
    files of others. columns: names of the columns, such as label, token, pos, doc, names. label: how to call it.
    history: stages of `bntools.history`. precision: relative rounding of the stored type.
    """

    def __init__(self, parts: list[Rows], facts: dict[str, Any], history: list[dict[str, Any]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        self.rows, self.width = int(self._starts[-1]), parts[0].width
        self.columns = tuple(name for name in parts[0].columns if all(name in p.columns for p in parts))
        self.facts, self.history, self.label = facts, history, parts[0].label
        self.precision = max(part.precision for part in parts)
        for part in parts[1:]:
            if part.width != self.width:
                raise bad_input(
                    f"{part.label} has rows of {part.width} numbers, {parts[0].label} of {self.width}",
                    "rows of one width, of one layer of one model",
                )

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def __enter__(self) -> Activations:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, start: int, stop: int) -> Floats:
        """Rows start..stop as float32 [stop - start, d], in memory of their own; bad ones are not looked for."""
        pieces = [part.read(a, b) for part, a, b in self._pieces(start, stop)]
        return (
            pieces[0]
            if len(pieces) == 1
            else np.concatenate([np.empty((0, self.width), np.float32), *pieces])
        )

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Entries start..stop of a column [n], in its stored type. Raises BnError (exit 2) where there is none."""
        if name not in self.columns:
            shown = ", ".join(self.columns) or "none"
            raise usage(f"{self.label} has no column {name}", f"its columns: {shown}")
        pieces = [
            p.column(name, a, b) for p, a, b in self._pieces(start, self.rows if stop is None else stop)
        ]
        return np.concatenate(pieces) if pieces else self._parts[0].column(name, 0, 0)

    def load(self, bad: str = "raise") -> tuple[Floats, Columns]:
        """All rows and columns. bad: what to do with rows that hold NaN or infinity, `raise`, `drop` or `keep`.

        Raises BnError (exit 3) with the number of bad rows and the first of them.
        """
        x = self.read(0, self.rows)
        columns = {name: self.column(name) for name in self.columns}
        keep = self.finite(x, 0, bad)
        return (x, columns) if keep is None else (x[keep], {k: v[keep] for k, v in columns.items()})

    def batches(self, size: int, bad: str = "raise") -> Iterator[tuple[Floats, Columns]]:
        """Rows in order, `size` at a time (the last batch may be shorter), each with its part of the columns."""
        for start in range(0, self.rows, size):
            stop = min(start + size, self.rows)
            x = self.read(start, stop)
            columns = {name: self.column(name, start, stop) for name in self.columns}
            keep = self.finite(x, start, bad)
            yield (x, columns) if keep is None else (x[keep], {k: v[keep] for k, v in columns.items()})

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        for index in range(max(first, 0), len(self._parts)):
            begin = int(self._starts[index])
            if begin >= stop:
                return
            part = self._parts[index]
            a, b = max(start - begin, 0), min(stop - begin, part.rows)
            if a < b:
                yield part, a, b

    def finite(self, x: Floats, start: int, bad: str) -> NDArray[np.bool_] | None:
        """Which rows are finite; None where all are, or `bad` says to keep the others."""
        if bad == "keep":
            return None
        finite = np.asarray(np.isfinite(x).all(1))
        if finite.all():
            return None
        if bad == "raise":
            count, first = int((~finite).sum()), start + int(np.argmin(finite))
            raise bad_input(
                f"{self.label}: {count} rows of {len(x)} hold NaN or infinity, the first is row {first}",
                "--drop-bad leaves them out",
            )
        return finite


def open_activations(source: str, tensor: str | None = None, integers: bool = False) -> Activations:
    """Open rows by name: an artifact, a folder of shards, .npy, .npz, a manifest, or `-` for standard input.

    tensor: which one, where there are several and none is called x. Leading axes are flattened. Other tensors with one
    entry a row are columns. integers: whole numbers pass as rows, too. Raises BnError: exit 2 for a path that is not
    there or a tensor that must be named, 3 for damage, foreign formats, rows of different widths, no rows.

    >>> write_activations("/tmp/a.safetensors", np.eye(3, dtype=np.float16), {"label": [0, 1, 1]}, force=True)["kind"]
    'activations'
    >>> with open_activations("/tmp/a.safetensors") as rows:
    ...     rows.rows, rows.width, rows.columns, rows.column("label").tolist()
    (3, 3, ('label',), [0, 1, 1])
    """
    if source != "-" and os.path.isdir(source):
        return _from_folder(Path(source), tensor, integers)
    label = "standard input" if source == "-" else source
    fd = streams.seekable(source)
    kind = streams.sniff(os.pread(fd, 64, 0))
    if kind == "safetensors":
        artifact = Artifact(fd, label, None if source == "-" else Path(source).absolute())
        return _opened(
            [from_artifact(artifact, tensor, integers)], _facts(artifact, tensor), artifact.history
        )
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb") as file:
        if kind == "json":
            return _from_manifest(parse_json(file.read(), dict, label), label, tensor, integers)
        if kind not in ("npy", "zip"):
            foreign = bad_input(f"{label} is neither safetensors, .npy nor .npz", _CONVERT)
            raise foreign if kind in ("gguf", "unknown") else streams.refuse(kind, label)
        return _opened([from_numpy(file, kind, label, tensor, integers)], {}, [])


def write_activations(
    target: str, x: Any, columns: Mapping[str, Any] | None = None, *, facts: Mapping[str, Any] | None = None,
    history: list[dict[str, Any]] | None = None, dtype: str | None = None, force: bool = False,
) -> dict[str, Any] | None:  # fmt: skip
    """Write rows that are in memory: x [N, d], or {name: [N, d]} for several layers, numpy or torch.

    target: a file, `DIR/` for a folder of shards, or `-`. dtype: float16, bfloat16 or float32; x's own unless said.
    Returns the manifest, None where it went to standard output. Raises BnError (exit 2) for a target that is taken.
    """
    with ActivationsWriter(target, facts=facts, history=history, dtype=dtype, force=force) as out:
        out.add(x, columns)
    return out.manifest


def _opened(parts: list[Rows], facts: dict[str, Any], history: list[dict[str, Any]]) -> Activations:
    parts = [part for part in parts if part.rows] or parts[:1]
    if not parts[0].rows or not parts[0].width:
        raise bad_input(f"{parts[0].label} holds no rows", "was anything written to it?")
    return Activations(parts, facts, history)


def _from_folder(folder: Path, tensor: str | None, integers: bool) -> Activations:
    """Shards in the order of the index, or of their names where there is none (10 behind 9)."""
    index = folder / INDEX
    if index.is_file():
        value = parse_json(index.read_bytes(), dict, str(index))
        shards = value.get("shards")
        if not isinstance(shards, list) or not all(isinstance(n, str) and "/" not in n for n in shards):
            raise bad_input(f"{index}: shards must be a list of files of this folder")
        paths = [folder / name for name in shards]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise bad_input(f"{folder}: shard {missing[0]} is missing ({len(missing)} of {len(paths)})")
    else:
        paths = sorted((p for p in folder.glob("*.safetensors") if p.name[0] != "."), key=natural)
    if not paths:
        raise bad_input(
            f"no activations in {folder}", "a folder of .safetensors files: bntools embed -o DIR/"
        )
    parts, facts, history = [], {}, []
    for path in paths:
        artifact = open_path(path)
        if not parts:
            facts, history = _facts(artifact, tensor), artifact.history
        parts.append(from_artifact(artifact, tensor, integers, reopen=True))
        _same_origin(facts, _facts(artifact, tensor), str(path))
    return _opened(parts, facts, history)


def _same_origin(first: dict[str, Any], other: dict[str, Any], label: str) -> None:
    """Shards of one folder come from one place in one model."""
    for key in ("sha256", "site", "layer"):
        if key in first and key in other and first[key] != other[key]:
            raise bad_input(f"{label} has {key} {other[key]!r}, the shards before it {first[key]!r}")


def _facts(artifact: Artifact, tensor: str | None) -> dict[str, Any]:
    """The facts of an artifact, those of the chosen tensor among them where it holds several."""
    facts = artifact.json("bntools.activations", dict)
    several = facts.pop("tensors", {})
    own = several.get(tensor) if isinstance(several, dict) else None
    return {**facts, **own} if isinstance(own, dict) else facts


def _from_manifest(value: dict[str, Any], label: str, tensor: str | None, integers: bool) -> Activations:
    path = value.get("path")
    if value.get("bntools") != 1 or not isinstance(path, str):
        raise bad_input(
            f"{label} is a JSON report where activations are expected", "pipe the tensors, not a report"
        )
    if not os.path.exists(path):
        what = f"the manifest names {path}, which is not there"
        raise bad_input(what, "was it written on another machine? pipe the stream instead")
    return open_activations(path, tensor, integers)
