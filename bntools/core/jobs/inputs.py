"""Which files a run depends on: by content, or by size and date where they are large."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any, BinaryIO

from bntools.core.errors import usage

_HASHED = 1 << 30  # bytes up to which the content is hashed; beyond, sizes and dates stand for it


def fingerprint(text: str) -> dict[str, Any] | str:
    """Bytes and sha256 of a file or of all files in a folder; the text itself where it names neither.

    Raises BnError (exit 2) for a pipe: jobs cannot read it.
    """
    path = Path(text)
    if not path.exists():
        return text
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif stat.S_ISREG(mode):
        files = [path]
    else:
        raise usage(f"{text} is no file: jobs cannot read it", "write it to a file first")
    size = sum(file.stat().st_size for file in files)
    digest = hashlib.sha256()
    for file in files:
        if len(files) > 1:
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        _add(digest, file, size <= _HASHED)
    return {"bytes": size, "sha256" if size <= _HASHED else "dates": digest.hexdigest()}


def _add(digest: Any, file: Path, content: bool) -> None:
    if not content:
        digest.update(f"{file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
        return
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)


def spool(source: BinaryIO, target: Path) -> None:
    """Standard input as a file: each job reads all of it."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def suffix(path: Path) -> str:
    """The ending of a file's name that goes with its first bytes."""
    with open(path, "rb") as file:
        head = file.read(9)
    if head[:6] == b"\x93NUMPY":
        return ".npy"
    if head[:2] == b"PK":
        return ".npz"
    return ".safetensors" if head[4:9] == b"\0\0\0\0{" else ".jsonl"
