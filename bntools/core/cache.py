"""Files kept between runs, each known by its sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bntools.core.errors import BnError


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/bntools, or ~/.cache/bntools; a relative XDG_CACHE_HOME is ignored, as the XDG specification asks."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "bntools"


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached(name: str, sha256: str, produce: Callable[[Path], None]) -> Path:
    """The cached file `name` if it has this sha256, else what `produce(path)` writes, checked and kept.

    A stamp beside the file (size and time of modification) spares reading it again; when it differs, the file is
    hashed. Processes that race each produce their own and the last whole file stays. Raises BnError (exit 1) when the
    produced file has another sha256; nothing of it stays.
    """
    path = cache_dir() / name
    if path.is_file() and _matches(path, sha256):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True)
    except OSError as error:
        raise BnError(f"cannot write to the cache {path.parent}: {error.strerror}", "set XDG_CACHE_HOME to a writable folder") from None
    with folder:
        fresh = Path(folder.name) / path.name
        produce(fresh)
        actual = sha256_file(fresh)
        if actual != sha256:
            raise BnError(f"{name} has sha256 {actual}, expected {sha256}", "the registry serves another file; nothing was kept")
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
    return path.with_name(path.name + ".stamp")


def _write_stamp(path: Path, sha256: str) -> None:
    """A stamp that cannot be written (read-only cache) only costs the next run a hash."""
    with contextlib.suppress(OSError):
        text = json.dumps(_stamp(path, sha256))
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".stamp.", delete=False) as file:
            file.write(text)
        os.replace(file.name, _stamp_path(path))
