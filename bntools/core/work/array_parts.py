"""Parts of a sharded run that are a few arrays: written with --shard, read with --gather."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input
from bntools.core.work import shards
from bntools.core.work.shards import Shard

Arrays = dict[str, NDArray[Any]]
_NAMES = {"bool": "BOOL", "uint8": "U8", "int32": "I32", "int64": "I64", "float32": "F32", "float64": "F64"}
_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}


def write(
    target: str, kind: str, shard: Shard, *, identity: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]],
    force: bool,
) -> dict[str, Any] | None:  # fmt: skip
    """Write one part, whole or not at all; returns the manifest, None for standard output."""
    with Writer(target, kind, force=force) as out:
        for name, array in arrays.items():
            plain = np.ascontiguousarray(array)
            out.add_raw(name, _NAMES[plain.dtype.name], plain.shape, plain.reshape(-1).view(np.uint8).data)
        out.describe("part", shards.describe(shard, identity))
    return out.manifest


def read(paths: Iterable[str], kind: str, identity: Mapping[str, Any]) -> list[Arrays]:
    """The arrays of all parts, in their order. Raises BnError (exit 3) where a part is missing or a stranger."""
    joined = []
    for part in shards.open_parts(paths, kind, identity):
        with part:
            arrays: Arrays = {}
            for name in part.names():
                entry = part.entries[name]
                if entry.dtype not in _DTYPES:
                    raise bad_input(f"{part.label}: {name} is of type {entry.dtype}", "make the part again")
                data = np.frombuffer(bytearray(part.part(name)), _DTYPES[entry.dtype])
                arrays[name] = data.reshape(entry.shape)
            joined.append(arrays)
    return joined


def joined(parts: list[Arrays], name: str) -> NDArray[Any]:
    """One array of all parts that hold it, end to end. Raises BnError (exit 3) where none does."""
    arrays = [part[name] for part in parts if name in part]
    if not arrays:
        raise bad_input(f"the parts hold no {name}", "make them again")
    return np.concatenate(arrays)
