"""Sparse codes as an artifact of kind `codes`: latents and values of each row, with the columns of the rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact.dtypes import FLOATS
from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.datasets.activation_rows import NAMES, NAMES_FILE
from bntools.core.datasets.activations_writer import ColumnSpool
from bntools.core.errors import bad_input
from bntools.kernels.sparse import selection
from bntools.kernels.sparse.selection import Floats, Support

KIND = "codes"
INDEX, VALUE, NORM = "index", "value", "x_norm"
_VALUES = {"float16": ("F16", np.float16), "float32": ("F32", np.float32)}


class CodePiece(NamedTuple):
    """Codes of some rows, with the columns beside them."""

    codes: Support
    columns: dict[str, Any]


def write(
    out: Writer, pieces: Iterable[CodePiece], facts: dict[str, Any], width: int, dtype: str = "float16"
) -> dict[str, float]:
    """Put codes into a writer of kind `codes`, batch by batch: index [N, width] int32 and value, 0 where unused.

    Codes beyond float16's largest are written as float32 from the start or refused. Returns {rows, l0}.
    """
    stored, kind = _VALUES[dtype]
    spools = {INDEX: ColumnSpool("I32", (width,), None), VALUE: ColumnSpool(stored, (width,), None)}
    names: list[str] = []
    rows = used = 0
    try:
        for codes, columns in pieces:
            latents, values = codes.padded(width)
            if dtype == "float16" and len(values) and float(np.abs(values).max()) > 65504:
                raise bad_input("a code does not fit float16", "--store float32")
            spools[INDEX].append(latents)
            spools[VALUE].append(values.astype(kind))
            names += [str(name) for name in columns.get(NAMES, ())]
            for name, column in columns.items():
                if name != NAMES:
                    _column(spools, name, np.ascontiguousarray(column))
            rows, used = rows + len(latents), used + int(np.count_nonzero(values))
        out.describe("codes", {**facts, "rows": rows})
        if names:
            out.files[NAMES_FILE] = "\n".join(names).encode()
        for name, spool in spools.items():
            out.add_file(name, spool.dtype, (rows, *spool.shape), spool.fd)
    finally:
        for spool in spools.values():
            os.close(spool.fd)
    return {"rows": rows, "l0": used / max(rows, 1)}


def _column(spools: dict[str, ColumnSpool], name: str, column: NDArray[Any]) -> None:
    if name not in spools:
        letter = {"b": "BOOL", "i": "I", "u": "U", "f": "F"}[column.dtype.kind]
        spools[name] = ColumnSpool(letter if letter == "BOOL" else f"{letter}{8 * column.itemsize}", (), None)
    spools[name].append(column)


class Codes:
    """An artifact of codes, read in pieces."""

    def __init__(self, source: Artifact) -> None:
        if source.kind != KIND:
            what = f"{source.label} is an artifact of kind {source.kind!r}, not sparse codes"
            raise bad_input(what, "bntools sparse-encode makes them")
        entries = source.entries
        shapes = [entries[name].shape if name in entries else () for name in (INDEX, VALUE)]
        if (
            len(shapes[0]) != 2
            or shapes[0] != shapes[1]
            or entries[INDEX].dtype != "I32"
            or entries[VALUE].dtype not in FLOATS
        ):
            raise bad_input(f"{source.label} holds no index and value [rows, k]", "is it damaged?")
        self.source, self.label = source, source.label
        self.facts: dict[str, Any] = source.json("bntools.codes", dict)
        self.rows, self.width = shapes[0]

    def batches(self, latents: int, size: int = 4096) -> Iterator[CodePiece]:
        """Rows in order. Raises BnError (exit 3) for a latent that the dictionary lacks, or values not finite."""
        index, value = self.source.tensor(INDEX).numpy(), self.source.tensor(VALUE).to(torch.float32).numpy()
        if index.size and (int(index.min()) < 0 or int(index.max()) >= latents):
            raise bad_input(f"{self.label} uses latent {int(index.max())}, the dictionary has {latents}")
        if not np.isfinite(value).all():
            raise bad_input(f"{self.label} holds values that are not finite")
        columns = self.columns()
        for start in range(0, self.rows, size):
            stop = min(start + size, self.rows)
            full = selection.full(index[start:stop], value[start:stop])
            yield CodePiece(
                selection.only(full, full.values != 0), {k: v[start:stop] for k, v in columns.items()}
            )

    def columns(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {
            name: self.source.tensor(name).numpy()
            for name, entry in self.source.entries.items()
            if entry.shape == (self.rows,) and name not in (INDEX, VALUE)
        }
        if NAMES_FILE in self.source.files:
            arrays[NAMES] = self.source.files[NAMES_FILE].decode("utf-8", "replace").split("\n")
        return arrays


def edit(decoded: Floats, D: Floats, codes: Support, change: tuple[int, str, float]) -> None:
    """Change one code in all rows, in place of what was decoded from them: (latent, `+`, `=` or `*`, number)."""
    latent, how, number = change
    own = np.zeros(len(decoded), np.float32)
    hit = codes.latents == latent
    own[codes.pair_rows[hit]] = codes.values[hit]
    step = {"+": np.full_like(own, number), "=": np.float32(number) - own, "*": np.float32(number - 1) * own}[
        how
    ]
    decoded += step[:, None] * D[latent]
