"""The cache folder: files that are whole or not there, those from outside known by their sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bntools.core.artifact.streams import scratch_folder
from bntools.core.errors import BnError


def cache_dir(kind: str = "") -> Path:
    """`$XDG_CACHE_HOME/bntools/KIND` (or under ~/.cache), made if need be."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(root) / "bntools" / kind
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot use the cache {path}: {error.strerror}"
        raise BnError(what, "set XDG_CACHE_HOME to a folder you may write") from None
    return path


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_newest(folder: Path, count: int) -> None:
    """Remove all but the `count` files used last."""
    files = [file for file in folder.iterdir() if file.is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)[count:]:
        file.unlink(missing_ok=True)


def cached_path(name: str, sha256: str) -> Path:
    """Where `cached` keeps this file."""
    return cache_dir("files") / f"{sha256[:16]}-{name}"


def cached(name: str, sha256: str, produce: Callable[[Path], None]) -> Path:
    """The cached file with this sha256; where it is missing or damaged, what `produce(path)` writes.

    A stamp beside the file (size and time of modification) spares reading it again; when it differs, the
    file is hashed. Processes that race each produce their own and the last whole file stays. Raises BnError
    (exit 1) naming both digests when something else was produced; nothing of it stays.
    """
    path = cached_path(name, sha256)
    if path.is_file() and _matches(path, sha256):
        return path
    with scratch_folder(path.parent, f".{name}.") as folder:
        fresh = folder / name
        produce(fresh)
        produced = sha256_file(fresh)
        if produced != sha256:
            what = f"{name} has sha256 {produced}, expected {sha256}"
            raise BnError(what, "another file came than the one known; nothing was kept")
        os.replace(fresh, path)
    _write_stamp(path, sha256)
    return path


def _matches(path: Path, sha256: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        if json.loads(_stamp_path(path).read_text()) == _stamp(path, sha256):
            return True
    if sha256_file(path) != sha256:
        return False
    _write_stamp(path, sha256)
    return True


def _stamp(path: Path, sha256: str) -> list[int | str]:
    status = path.stat()
    return [sha256, status.st_size, status.st_mtime_ns]


def _stamp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.stamp")


def _write_stamp(path: Path, sha256: str) -> None:
    """Note that the file was checked; where that cannot be written, the next run hashes it again."""
    with contextlib.suppress(OSError):
        text = json.dumps(_stamp(path, sha256))
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".stamp.", delete=False) as file:
            file.write(text)
        os.replace(file.name, _stamp_path(path))
