"""Reading the one stream format: a safetensors file, or a pipe spooled to one, with random access."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bntools.core.artifact import dtypes, header, streams
from bntools.core.artifact.header import Entry
from bntools.core.errors import bad_input, usage

if TYPE_CHECKING:
    import torch

FORMAT = "1"
STACK = "stack"
_LARGEST_FILE = 256 << 20
_EXPANSION = 32  # of a compressed side file; a tokenizer shrinks by 5 to 8


class Artifact:
    """Random access to one safetensors stream behind a file descriptor, which the artifact then owns.

    Tensors are read with positioned reads, not through a memory map: the resident set stays at one tensor whatever
    the file's size, and a file cut short under the reader is an error, not a SIGBUS.
    A stack (bntools-stack(5)) may end anywhere behind its base; budget: bytes of it to be read at most. `nbytes` is
    what is there of it, and `entries` lists the tensors of which there is anything.
    """

    def __init__(self, fd: int, label: str, path: Path | None = None, budget: int | None = None) -> None:
        self.fd = fd
        self.label = label
        self.path = path
        try:
            self.header = _read_header(fd, label, budget)
            self.nbytes = _present(self.header, fd, label, budget)
        except BaseException:
            self.close()
            raise
        end = self.nbytes - self.header.size
        whole = self.nbytes == self.header.total
        entries = self.header.entries
        self.entries = (
            entries if whole else {n: e for n, e in entries.items() if e.start < end or not e.nbytes}
        )
        self.metadata = self.header.metadata

    def within(self, budget: int) -> Artifact:
        """The same stack with at most so many bytes of it, to be closed for itself."""
        return Artifact(os.dup(self.fd), self.label, self.path, budget)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Artifact:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def kind(self) -> str:
        """`model`, `stack`, ...; `tensors` for a file that bntools did not write."""
        return self.metadata.get("bntools.kind", "tensors")

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        stages = self.json("bntools.history", list)
        if not all(isinstance(stage, dict) for stage in stages):
            raise bad_input(f"metadata bntools.history of {self.label} is no list of stages")
        return stages

    @cached_property
    def report(self) -> dict[str, Any]:
        return self.json("bntools.report", dict)

    def json(self, key: str, expected: type) -> Any:
        """Parsed JSON of a metadata value, an empty `expected` where it is absent."""
        text = self.metadata.get(key)
        if text is None:
            return expected()
        return parse_json(text, expected, f"metadata {key}")

    def names(self) -> list[str]:
        """Names of the tensors proper, in the order of their data; side files are not among them."""
        return [name for name in self.entries if header.side_file_name(name) is None]

    def part(self, name: str) -> bytearray:
        """The bytes of one tensor that are there: of the last one of a stack, maybe not all."""
        entry = self.entries[name]
        end = min(entry.end, self.nbytes - self.header.size)
        buffer = bytearray(end - entry.start)
        self._fill(memoryview(buffer), entry)
        return buffer

    def part_bytes(self, name: str) -> int:
        """How many bytes of one tensor are there."""
        entry = self.entries[name]
        return min(entry.end, self.nbytes - self.header.size) - entry.start

    def raw(self, name: str) -> bytearray:
        """The bytes of one tensor."""
        entry = self.entries[name]
        buffer = bytearray(entry.nbytes)
        self._fill(memoryview(buffer), entry)
        return buffer

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor in memory of its own, shape and type as stored."""
        import torch

        entry = self.entries[name]
        result = torch.empty(entry.shape, dtype=dtypes.torch_dtype(entry.dtype))
        if entry.nbytes:
            self._fill(memoryview(result.reshape(-1).view(torch.uint8).numpy()), entry)
        return result

    def _fill(self, view: memoryview, entry: Entry) -> None:
        position = self.header.size + entry.start
        while view:
            got = os.preadv(self.fd, [view[: 1 << 30]], position)
            if got == 0:
                raise bad_input(f"truncated: {self.label} ends inside tensor {entry.name!r}")
            view, position = view[got:], position + got

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Side files by name (tokenizer.json, ...), without the padding that aligns the tensors after them."""
        contents, sizes = {}, self.json("bntools.files", dict)
        for tensor, entry in self.entries.items():
            name = header.side_file_name(tensor)
            if name is not None:
                if entry.dtype != "U8":
                    raise bad_input(f"side file {name!r} has type {entry.dtype}, not U8")
                data = bytes(self.raw(tensor))
                size = sizes.get(name)
                data = data[:size] if isinstance(size, int) and size >= 0 else data.rstrip(b"\n")
                contents[name.removesuffix(".xz")] = _expand(name, data) if name.endswith(".xz") else data
        return contents

    @property
    def config(self) -> dict[str, Any]:
        """The model's config, which lies among the side files where it is large; empty without one."""
        text = self.files.get("config.json")
        return self.json("config.json", dict) if text is None else parse_json(text, dict, "config.json")

    def sha256(self) -> str:
        """Digest of the whole stream, header included; of a stack, of what is there."""
        digest = hashlib.sha256()
        position = 0
        while block := os.pread(self.fd, min(streams.CHUNK, self.nbytes - position), position):
            digest.update(block)
            position += len(block)
        return digest.hexdigest()


def _expand(name: str, data: bytes) -> bytes:
    """A side file compressed by xz; BnError (exit 3) when it is damaged or grows beyond measure."""
    import lzma

    most = min(_LARGEST_FILE, _EXPANSION * len(data) + (16 << 20))
    try:
        expander = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LARGEST_FILE)
        expanded = expander.decompress(data, max_length=most)
    except lzma.LZMAError as error:
        raise bad_input(f"side file {name!r} is damaged: {error}") from None
    if not expander.eof:
        raise bad_input(f"side file {name!r} is cut short, or larger than {most >> 20} MiB")
    return expanded


def _read_header(fd: int, label: str, budget: int | None) -> header.Header:
    size = os.fstat(fd).st_size
    head = os.pread(fd, 9, 0)
    kind = streams.sniff(head)
    if kind != "safetensors":
        raise streams.refuse(kind, label) if kind != "json" else _json_instead(label)
    length = header.header_length(head)
    if 8 + length > size:
        raise bad_input(f"truncated: {label} has {size} bytes, its header alone needs {8 + length}")
    if budget is not None and 8 + length > budget:
        raise bad_input(
            f"a budget of {budget:,} bytes does not hold the header of {label}, {8 + length:,} bytes",
            f"bntools info {label} tells the size of its base",
        )
    return header.parse(os.pread(fd, length, 8))


def _present(parsed: header.Header, fd: int, label: str, budget: int | None) -> int:
    """Bytes to be read: all of them, of a stack those within size and budget, its base at least."""
    size = os.fstat(fd).st_size
    stack = parsed.metadata.get("bntools.kind") == STACK
    if budget is not None and not stack:
        raise usage(f"a budget is for stacks, and {label} is none", "bntools stack-compress makes one")
    if parsed.total < size or (parsed.total > size and not stack):
        problem = "truncated" if parsed.total > size else "trailing bytes"
        raise bad_input(f"{problem}: {label} has {size} bytes, its header describes {parsed.total}")
    limit = min(size, budget or size)
    if limit < parsed.base_bytes:
        what = f"a budget of {limit:,} bytes" if limit < size else f"{label}, {size:,} bytes,"
        raise bad_input(
            f"{what} is below the base of the stack: its smallest prefix has {parsed.base_bytes:,} bytes",
            f"--budget {parsed.base_bytes}, or more of the file",
        )
    return limit


def _json_instead(label: str) -> Exception:
    return bad_input(f"{label} is JSON where tensors are expected", "a report cannot be read back as a model")


def parse_json(text: str | bytes, expected: type, what: str) -> Any:
    """JSON of the expected top-level type; BnError (exit 3) otherwise."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = "Extra data" in str(error)
        hint = (
            "one JSON value is expected, these are JSON lines" if lines else "is it whole? it does not parse"
        )
        raise bad_input(f"{what} is not valid JSON: {str(error)[:120]}", hint) from None
    if not isinstance(value, expected):
        raise bad_input(f"{what} is a JSON {type(value).__name__}, expected {expected.__name__}")
    return value


def open_path(path: str | os.PathLike[str], budget: int | None = None) -> Artifact:
    """Open a file by name; a FIFO or other pipe is spooled first. Raises BnError: exit 2 for one that is not there, 3
    if it is no artifact.

    budget: bytes of a stack to be read at most.
    """
    path = Path(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise usage(f"cannot open {path}: {error.strerror}", "check the path") from None
    if not streams.is_regular(fd):
        spooled = streams.spool(fd, budget)
        os.close(fd)
        return Artifact(spooled, str(path), None, budget)
    return Artifact(fd, str(path), path.absolute(), budget)


def stream(fd: int) -> Iterator[tuple[Entry, bytearray]]:
    """Tensors of a pipe in the order of their data, one in memory at a time, for tools that read once.

    Raises BnError (exit 3) on truncation and on trailing bytes. The buffer is reused for the next tensor.
    """
    streams.widen(fd)
    length = header.header_length(bytes(streams.read_exact(fd, 8, "the stream")))
    parsed = header.parse(bytes(streams.read_exact(fd, length, "the header")))
    buffer = bytearray()
    for entry in parsed.entries.values():
        _refill(fd, buffer, entry)
        yield entry, buffer
    if os.read(fd, 1):
        raise bad_input("trailing bytes after the last tensor")


def _refill(fd: int, buffer: bytearray, entry: Entry) -> None:
    """Read one tensor into `buffer`, which grows only as data arrive: a lying header allocates nothing."""
    done = 0
    while done < entry.nbytes:
        room = min(streams.CHUNK, entry.nbytes - done)
        if len(buffer) < done + room:
            buffer.extend(bytes(done + room - len(buffer)))
        with memoryview(buffer) as view:
            got = os.readv(fd, [view[done : done + room]])
        if got == 0:
            raise bad_input(f"truncated: tensor {entry.name!r} ends after {done} of {entry.nbytes} bytes")
        done += got
    del buffer[entry.nbytes :]
