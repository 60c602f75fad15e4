"""Byte streams: what the first bytes say, a pipe spooled to a random-access file, exact reads and copies."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bntools.core.errors import BnError, bad_input, usage

CHUNK = 1 << 20
_FOREIGN = [
    (b"GGUF", "gguf"), (b"PK\x03\x04", "zip"), (b"\x80", "pickle"), (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "npy"), (b"\x28\xb5\x2f\xfd", "zstd"),
]  # fmt: skip
_REFUSAL = {
    "zip": (
        "a zip archive (torch or numpy save file)",
        "convert it to safetensors: pickled files can run code",
    ),
    "pickle": ("a pickle", "convert it to safetensors: pickles can run code"),
    "gzip": ("gzip data", "decompress it first: gzip -dc FILE | bntools ..."),
    "zstd": ("zstd data", "decompress it first: zstd -dc FILE | bntools ..."),
    "npy": ("a numpy array", "convert it to safetensors"),
    "unknown": ("neither safetensors, GGUF nor JSON", "see bntools-artifact(5)"),
}


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that is gone afterwards, also where a signal ends the program while it is made.

    `tempfile` knows no folder before it is there, so one that a signal interrupts there stays behind.
    """
    folder = parent / f"{prefix}{os.urandom(8).hex()}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sniff(head: bytes) -> str:
    """Kind of stream from its first nine bytes: safetensors, json, empty, gguf or a foreign format's name."""
    if not head:
        return "empty"
    if len(head) >= 9 and head[4:8] == b"\0\0\0\0" and head[8:9] == b"{":
        return "safetensors"
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            return name
    if head.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        return "json"
    # A short or damaged header still deserves the precise message of the header parser.
    return "safetensors" if len(head) >= 8 and head[4:8] == b"\0\0\0\0" else "unknown"


def refuse(kind: str, where: str) -> BnError:
    """The error for a stream of a kind no tool reads."""
    if kind == "empty":
        if where == "standard input":
            return bad_input(
                "no data on standard input", "did the previous command fail? try: set -o pipefail"
            )
        return bad_input(f"{where} is empty", "was it fully written?")
    what, hint = _REFUSAL.get(kind, _REFUSAL["unknown"])
    return bad_input(f"{where} is {what}", hint)


def is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def temporary_fd(folder: str | None = None) -> int:
    """Descriptor of an unlinked temporary file: nothing is left behind whatever happens to this process."""
    folder = folder or tempfile.gettempdir()
    with contextlib.suppress(OSError, AttributeError):
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    fd, name = tempfile.mkstemp(dir=folder)
    os.unlink(name)
    return fd


def widen(fd: int) -> None:
    """Ask for the largest pipe an unprivileged process may have; fewer, larger transfers cost less CPU."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)


def spool(fd: int, limit: int | None = None) -> int:
    """Move what is readable from a pipe, `limit` bytes at most, into an unlinked temporary file; its descriptor."""
    target, left = temporary_fd(), limit if limit is not None else 1 << 62
    widen(fd)
    try:
        while moved := os.splice(fd, target, min(CHUNK, left)) if left else 0:
            left -= moved
    except (OSError, AttributeError):
        while block := os.read(fd, min(CHUNK, left)):  # sockets, terminals and other systems have no splice
            write_all(target, block)
            left -= len(block)
    return target


def seekable(source: str) -> int:
    """A descriptor of a file, or of `-`, standard input, at its beginning: a pipe is spooled. BnError (exit 2)."""
    try:
        fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise usage(f"cannot open {source}: {error.strerror}", "check the path") from None
    if is_regular(fd) and (source != "-" or os.lseek(fd, 0, os.SEEK_CUR) == 0):
        return fd
    spooled = spool(fd)
    os.close(fd)
    return spooled


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def read_exact(fd: int, count: int, what: str) -> bytearray:
    """Read `count` bytes from the current position, growing only as data arrive; BnError (exit 3) if they end early."""
    buffer = bytearray()
    while len(buffer) < count:
        block = os.read(fd, min(CHUNK, count - len(buffer)))
        if not block:
            raise bad_input(f"truncated: {what} ends after {len(buffer)} of {count} bytes")
        buffer += block
    return buffer


def copy_range(source: int, start: int, count: int, target: int, digest: hashlib._Hash | None = None) -> None:
    """Copy bytes between descriptors, inside the kernel where no digest is asked for."""
    while count > 0:
        if digest is None:
            moved = os.sendfile(target, source, start, min(count, 1 << 30))
        else:
            block = os.pread(source, min(CHUNK, count), start)
            digest.update(block)
            write_all(target, block)
            moved = len(block)
        if moved == 0:
            raise BnError("the temporary file ended early", "was it truncated by another program?")
        start += moved
        count -= moved
