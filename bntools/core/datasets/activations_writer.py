"""Writing activations as they come: each tensor waits in a temporary file until its number of rows is known."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import streams
from bntools.core.artifact import writer as files
from bntools.core.artifact.writer import STDOUT, Writer, check_target, is_directory, write_durably
from bntools.core.datasets.activation_rows import MAIN, NAMES, NAMES_FILE
from bntools.core.errors import usage

KIND = "activations"
INDEX = "activations.json"
SHARD_BYTES = 1 << 30
_HALF_LARGEST = 65504.0
_CHUNK_ROWS = 1 << 14
_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_COLUMN_TYPES = {"b": "BOOL", "i": "I", "u": "U", "f": "F"}


class ActivationsWriter:
    """Collects rows batch by batch and, on a clean exit, writes one file, one stream, or a folder of shards.

    target: a path, `DIR/` (or an existing folder) for shards of about `shard_bytes`, or `-`. dtype: float16, bfloat16
    or float32; None keeps that of the first batch. Numbers beyond float16's largest turn what is written from then on,
    and the shard at hand, into bfloat16; `overflowed` says so. facts may be changed until the end.
    Memory holds one batch; the rest waits in unlinked temporary files.
    """

    def __init__(
        self, target: str, *, facts: Mapping[str, Any] | None = None, history: list[dict[str, Any]] | None = None,
        dtype: str | None = None, force: bool = False, shard_bytes: int = SHARD_BYTES,
    ) -> None:  # fmt: skip
        self.target, self.force, self.dtype = target, force, dtype
        self.facts: dict[str, Any] = dict(facts or {})
        self.history = list(history or [])
        self.manifest: dict[str, Any] | None = None
        self.rows, self.overflowed = 0, False
        self._limit = shard_bytes if is_directory(target) else 1 << 62
        self._shards: list[tuple[str, int, str]] = []
        self._spools: dict[str, ColumnSpool] = {}
        self._names: list[str] = []
        self._shard_rows = 0
        self._folder: Path | None = None
        self._beside = None if target == STDOUT else str(Path(os.path.realpath(target)).parent)
        if is_directory(target):
            _check_folder(target, force)
        else:
            check_target(target, force)

    def __enter__(self) -> ActivationsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._drop_spools()
            if self._folder is not None:
                files.remove_tree(self._folder)

    def add(self, x: Any, columns: Mapping[str, Any] | None = None) -> None:
        """Append rows: x [n, d] or {name: [n, d]}; columns {name: [n]}, `names` a list of texts."""
        tensors = x if isinstance(x, Mapping) else {MAIN: x}
        count = len(next(iter(tensors.values())))
        for name, rows in {**tensors, **(columns or {})}.items():
            if len(rows) != count:
                raise ValueError(f"{name} has {len(rows)} rows, not {count}")
        for name, rows in tensors.items():
            self._add_matrix(name, rows)
        for name, values in (columns or {}).items():
            if name == NAMES:
                self._names += [" ".join(str(value).splitlines()) for value in values]
            else:
                array = np.ascontiguousarray(values)
                code = _COLUMN_TYPES[array.dtype.kind]
                self._spool(name, code if code == "BOOL" else f"{code}{8 * array.itemsize}", ()).append(array)
        self.rows += count
        self._shard_rows += count
        if sum(spool.size for spool in self._spools.values()) >= self._limit:
            self._close_shard()

    def _add_matrix(self, name: str, rows: Any) -> None:
        import torch

        plain = (
            rows
            if isinstance(rows, torch.Tensor)
            else torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        )
        x = plain.detach().cpu()
        if self.dtype is None:
            self.dtype = str(x.dtype).removeprefix("torch.")
            self.dtype = self.dtype if self.dtype in _TYPES else "float32"
        if self.dtype == "float16" and x.dtype != torch.float16:
            finite = torch.where(torch.isfinite(x), x, 0)
            if len(finite) and float(finite.abs().max()) > _HALF_LARGEST:
                self._to_bfloat16()
        spool = self._spool(name, _TYPES[self.dtype], tuple(x.shape[1:]))
        stored = x.to(getattr(torch, self.dtype)).contiguous()
        spool.append(stored.view(torch.uint8).numpy() if stored.numel() else np.empty(0, np.uint8))

    def _spool(self, name: str, dtype: str, shape: tuple[int, ...]) -> ColumnSpool:
        if name not in self._spools:
            self._spools[name] = ColumnSpool(dtype, shape, self._beside)
        spool = self._spools[name]
        if (spool.dtype, spool.shape) != (dtype, shape):
            raise ValueError(f"{name} is {dtype} {shape}, the rows before it {spool.dtype} {spool.shape}")
        return spool

    def _to_bfloat16(self) -> None:
        self.dtype, self.overflowed = "bfloat16", True
        for name, spool in list(self._spools.items()):
            if spool.dtype == "F16" and spool.shape:
                self._spools[name] = spool.as_bfloat16()

    def _finish(self) -> None:
        if not is_directory(self.target):
            with Writer(self.target, KIND, force=self.force) as out:
                self._fill(out)
            self.manifest = out.manifest
            return
        if self._shard_rows or not self._shards:
            self._close_shard()
        assert self._folder is not None
        path = Path(os.path.realpath(self.target))
        names = [name for name, _, _ in self._shards]
        value = {"bntools": 1, "kind": KIND, "rows": self.rows, "shards": names, "facts": self.facts}
        text = json.dumps(value, indent=1).encode() + b"\n"
        write_durably(self._folder / INDEX, text)
        files.replace_directory(self._folder, path)
        self._folder = None
        digest = hashlib.sha256("\n".join(digest for _, _, digest in self._shards).encode()).hexdigest()
        size = len(text) + sum(size for _, size, _ in self._shards)
        self.manifest = {"bntools": 1, "kind": KIND, "path": str(path), "bytes": size, "sha256": digest}

    def _close_shard(self) -> None:
        if self._folder is None:
            path = Path(os.path.realpath(self.target))
            self._folder = path.parent / f".{path.name}.tmp-{os.getpid()}"
            self._folder.mkdir()
        name = f"acts-{len(self._shards):05d}.safetensors"
        with Writer(str(self._folder / name), KIND) as out:
            self._fill(out)
        assert out.manifest is not None
        self._shards.append((name, out.manifest["bytes"], out.manifest["sha256"]))
        self._drop_spools()

    def _fill(self, out: Writer) -> None:
        out.describe("activations", {**self.facts, "rows": self._shard_rows, "dtype": self.dtype})
        out.describe("history", self.history)
        if self._names:
            out.files[NAMES_FILE] = "\n".join(self._names).encode()
        for name, spool in self._spools.items():
            out.add_file(name, spool.dtype, (self._shard_rows, *spool.shape), spool.fd)

    def _drop_spools(self) -> None:
        for spool in self._spools.values():
            os.close(spool.fd)
        self._spools, self._names, self._shard_rows = {}, [], 0


class ColumnSpool:
    """Rows of one tensor in an unlinked temporary file. shape: of one row; beside: the folder, if it can be had."""

    def __init__(self, dtype: str, shape: tuple[int, ...], beside: str | None) -> None:
        self.dtype, self.shape, self._beside = dtype, shape, beside
        self.fd = streams.temporary_fd(beside if beside and os.access(beside, os.W_OK) else None)
        self.size = 0

    def append(self, array: NDArray[Any]) -> None:
        data = memoryview(array.reshape(-1).view(np.uint8).data) if array.size else memoryview(b"")
        streams.write_all(self.fd, data)
        self.size += data.nbytes

    def as_bfloat16(self) -> ColumnSpool:
        """The same numbers of float16 in bfloat16; this spool is closed."""
        import torch

        other, step = (
            ColumnSpool("BF16", self.shape, self._beside),
            2 * _CHUNK_ROWS * int(np.prod(self.shape)),
        )
        for start in range(0, self.size, step):
            halves = torch.frombuffer(bytearray(os.pread(self.fd, step, start)), dtype=torch.float16)
            other.append(halves.to(torch.bfloat16).view(torch.uint8).numpy())
        os.close(self.fd)
        return other


def _check_folder(target: str, force: bool) -> None:
    """Refuse a folder that holds something else than activations, or holds some and `force` was not given (exit 2)."""
    path = Path(os.path.realpath(target))
    if not (path.is_dir() and any(path.iterdir())):
        check_target(target, force)
    elif not (path / INDEX).is_file() or any(child.is_dir() for child in path.iterdir()):
        raise usage(f"{target} is not empty and no folder of activations", "choose another -o DIR/")
    elif not force:
        raise usage(f"{target} exists and is not empty", "use --force to replace it")
