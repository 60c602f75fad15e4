"""Writing the one stream format: spool finished tensors, then send header and spool; to a file only whole."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bntools.core.artifact import dtypes, streams
from bntools.core.artifact.header import FILE_PREFIX, Entry, encode, nbytes, side_file_name
from bntools.core.artifact.targets import (
    STDOUT,
    check_target,
    is_directory,
    parent_of,
    publish,
    remove_tree,
    replace_directory,
    temporary_name,
    write_durably,
)

if TYPE_CHECKING:
    import torch

ALIGN = 64
_LARGE_CONFIG = 24_000  # bytes; a larger one is a side file, since the header has other things to hold
_WORTH_COMPRESSING = 1 << 16


class Writer:
    """Collects tensors one at a time and, on a clean exit, writes one artifact to `target`.

    target: `-` (standard output), a path, or a directory (`DIR/` or an existing one: HF layout). Memory holds one
    tensor; the others wait in an unlinked temporary file, so the header can carry results known only at the end.
    Side files come first, then tensors in the order added, except that a tensor whose size is not a multiple of
    eight bytes goes behind the others: every offset stays a multiple of its item size. With `order`, names of all
    tensors, these stand in that order, which then is the caller's to align. room: spare bytes in the header.
    """

    def __init__(self, target: str, kind: str, *, force: bool = False) -> None:
        self.target = target
        self.force = force
        self.metadata = {"format": "pt", "bntools.format": "1", "bntools.kind": kind}
        self.files: dict[str, bytes] = {}
        self.config: dict[str, Any] | None = None
        self.weights_file = "model.safetensors"
        self.compress = False
        self.manifest: dict[str, Any] | None = None
        self.order: list[str] | None = None
        self.room = 0
        self._spooled: list[tuple[Entry, int]] = []
        self._names: set[str] = set()
        check_target(target, force)
        folder = None if target == STDOUT else str(parent_of(target))
        self._fd = streams.temporary_fd(folder if folder and os.access(folder, os.W_OK) else None)
        self._size = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Append one tensor (any device and layout; stored contiguous, little-endian)."""
        import torch

        plain = tensor.detach().cpu().contiguous()
        data = memoryview(plain.reshape(-1).view(torch.uint8).numpy()) if plain.numel() else memoryview(b"")
        self.add_raw(name, dtypes.name_of(plain.dtype), tuple(plain.shape), data)

    def add_raw(
        self, name: str, dtype: str, shape: tuple[int, ...], data: bytes | bytearray | memoryview
    ) -> None:
        """Append one tensor given as bytes."""
        self._note(name, dtype, shape, memoryview(data).nbytes)
        streams.write_all(self._fd, memoryview(data))

    def add_file(self, name: str, dtype: str, shape: tuple[int, ...], fd: int) -> None:
        """Append one tensor whose bytes are the whole content of an open file, without reading it into memory."""
        size = os.fstat(fd).st_size
        self._note(name, dtype, shape, size)
        streams.copy_range(fd, 0, size, self._fd)

    def _note(self, name: str, dtype: str, shape: tuple[int, ...], size: int) -> None:
        if size != nbytes(dtype, shape):
            raise ValueError(f"{name}: {size} bytes for {dtype} {list(shape)}")
        if name in self._names:
            raise ValueError(f"{name} was added twice")
        self._names.add(name)
        self._spooled.append((Entry(name, dtype, shape, self._size, self._size + size), size % 8))
        self._size += size

    def describe(self, key: str, value: object) -> None:
        """Set a metadata entry to the JSON of `value`."""
        self.metadata[f"bntools.{key}"] = json.dumps(value, separators=(",", ":"))

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            os.close(self._fd)

    def _finish(self) -> None:
        if self.target == STDOUT:
            streams.widen(1)
            self._send(1, None, side_files=True)
        elif is_directory(self.target):
            self.manifest = self._write_directory()
        elif os.path.exists(self.target) and not os.path.isfile(self.target):
            fd = os.open(self.target, os.O_WRONLY)  # a FIFO or device is streamed to, never replaced
            try:
                self._send(fd, None, side_files=True)
            finally:
                os.close(fd)
        else:
            self.manifest = self._write_file()

    def _layout(self, side_files: bool) -> list[tuple[Entry, int | bytes]]:
        """Final entries in order, each with its bytes or its place in the spool."""
        parts: list[tuple[str, str, tuple[int, ...], int, int | bytes]] = []
        for name, data in self._side_files() if side_files else ():
            padded = data + b"\n" * (-len(data) % ALIGN)
            tensor = FILE_PREFIX + name
            side_file_name(tensor)
            parts.append((tensor, "U8", (len(padded),), len(padded), padded))
        if self.order is None:
            spooled = sorted(self._spooled, key=lambda item: _rank(item[0], item[1]))
        else:
            rank = {name: index for index, name in enumerate(self.order)}
            spooled = sorted(self._spooled, key=lambda item: rank[item[0].name])
        for entry, _ in spooled:
            parts.append((entry.name, entry.dtype, entry.shape, entry.nbytes, entry.start))
        layout, position = [], 0
        for name, dtype, shape, size, place in parts:
            layout.append((Entry(name, dtype, shape, position, position + size), place))
            position += size
        return layout

    def _side_files(self) -> list[tuple[str, bytes]]:
        """Side files as they are stored in a stream: with `compress`, the large ones by xz under NAME.xz."""
        files, text = (
            self.files,
            "" if self.config is None else json.dumps(self.config, separators=(",", ":")),
        )
        if len(text) > _LARGE_CONFIG:
            files = {**files, "config.json": text.encode()}
        return [
            compressed(name, data) if self.compress and len(data) >= _WORTH_COMPRESSING else (name, data)
            for name, data in files.items()
        ]

    def _send(self, fd: int, digest: hashlib._Hash | None, side_files: bool) -> None:
        metadata = dict(self.metadata)
        small = "" if self.config is None else json.dumps(self.config, separators=(",", ":"))
        if side_files and (self.files or len(small) > _LARGE_CONFIG):
            metadata["bntools.files"] = json.dumps({name: len(data) for name, data in self._side_files()})
        if self.config is not None and len(small) <= _LARGE_CONFIG:
            metadata["config.json"] = small
        layout = self._layout(side_files)
        self._put(fd, encode(metadata, [entry for entry, _ in layout], self.room), digest)
        run_start = run_size = 0
        for entry, place in layout:
            if isinstance(place, bytes):
                self._put(fd, place, digest)
            elif place == run_start + run_size:
                run_size += entry.nbytes
            else:
                streams.copy_range(self._fd, run_start, run_size, fd, digest)
                run_start, run_size = place, entry.nbytes
        streams.copy_range(self._fd, run_start, run_size, fd, digest)

    @staticmethod
    def _put(fd: int, data: bytes, digest: hashlib._Hash | None) -> None:
        if digest is not None:
            digest.update(data)
        streams.write_all(fd, data)

    def _write_tensors(self, path: Path, side_files: bool) -> str:
        digest = hashlib.sha256()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            self._send(fd, digest, side_files)
            os.fsync(fd)
        finally:
            os.close(fd)
        return digest.hexdigest()

    def _write_file(self) -> dict[str, Any]:
        path = Path(os.path.realpath(self.target))  # a link stays a link
        temporary = temporary_name(path)
        try:
            digest = self._write_tensors(temporary, side_files=True)
            size = temporary.stat().st_size
            publish(temporary, path, self.force)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return self._describe_manifest(path, size, digest)

    def _write_directory(self) -> dict[str, Any]:
        path = Path(os.path.realpath(self.target))
        temporary = temporary_name(path)
        temporary.mkdir()
        try:
            digest = self._write_tensors(temporary / self.weights_file, side_files=False)
            texts = dict(self.files)
            if self.config is not None:
                texts["config.json"] = json.dumps(self.config, indent=2).encode() + b"\n"
            for name, data in texts.items():
                side_file_name(FILE_PREFIX + name)
                (temporary / name).parent.mkdir(exist_ok=True)
                write_durably(temporary / name, data)
            size = sum(child.stat().st_size for child in temporary.rglob("*") if child.is_file())
            replace_directory(temporary, path)
        except BaseException:
            remove_tree(temporary)
            raise
        return self._describe_manifest(path, size, digest)

    def _describe_manifest(self, path: Path, size: int, digest: str) -> dict[str, Any]:
        kind = self.metadata["bntools.kind"]
        return {"bntools": 1, "kind": kind, "path": str(path), "bytes": size, "sha256": digest}


@functools.lru_cache(maxsize=8)
def compressed(name: str, data: bytes) -> tuple[str, bytes]:
    """A side file compressed by xz, and the name that says so."""
    import lzma

    return f"{name}.xz", lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _rank(entry: Entry, misaligned: int) -> tuple[int, int]:
    """Aligned sizes keep their order; the odd ones follow, larger items first."""
    return (0, 0) if not misaligned else (1, -(entry.nbytes // max(entry.numel, 1)))
