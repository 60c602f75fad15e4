"""Where an artifact is written: names that are refused before the work, files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from bntools.core.artifact.header import header_length, parse
from bntools.core.errors import USAGE, BnError, usage

STDOUT = "-"


def is_directory(target: str) -> bool:
    return target != STDOUT and (target.endswith("/") or os.path.isdir(target))


def parent_of(target: str) -> Path:
    return Path(os.path.realpath(target)).parent


def temporary_name(path: Path) -> Path:
    return path.parent / f".{path.name}.tmp-{os.getpid()}"


def check_target(target: str, force: bool) -> None:
    """Refuse a target before any work is done for it (exit 2): a terminal, a missing folder, an existing result."""
    if target == STDOUT:
        if os.isatty(1):
            raise usage("will not write tensors to a terminal", "use -o PATH, or pipe into another command")
        return
    path = Path(os.path.realpath(target))
    if not path.parent.is_dir():
        raise usage(f"no folder {path.parent} to write {path.name} in", f"mkdir -p {path.parent}")
    if not path.exists():
        if not os.access(path.parent, os.W_OK):
            raise usage(f"folder {path.parent} is not writable", "choose another -o PATH")
        return
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and target.endswith("/"):
        raise usage(
            f"{path} is a file, not a directory", "drop the trailing slash, or choose another -o DIR/"
        )
    if stat.S_ISREG(mode) and not force:
        raise usage(f"{target} exists", "use --force to replace it")
    if stat.S_ISDIR(mode) and any(path.iterdir()):
        if not force:
            raise usage(f"{target} exists and is not empty", "use --force to replace it")
        if not _is_artifact(path) or any(map(_is_foreign, path.iterdir())):
            raise usage(
                f"{target} does not look like a model directory",
                "--force replaces only those and what bntools wrote; choose another -o DIR/",
            )


def _is_artifact(folder: Path) -> bool:
    """Whether a folder holds a model, or tensors whose header says that a Writer wrote them."""
    if (folder / "config.json").is_file():
        return True
    return any(_is_ours(path) for path in sorted(folder.glob("*.safetensors")) if path.is_file())


def _is_ours(path: Path) -> bool:
    with open(path, "rb") as file, contextlib.suppress(BnError):
        return "bntools.kind" in parse(file.read(header_length(file.read(8)))).metadata
    return False


def _is_foreign(child: Path) -> bool:
    """Whether a folder inside a model's is none that holds templates only."""
    return child.is_dir() and any(path.suffix != ".jinja" for path in child.iterdir())


def publish(temporary: Path, path: Path, force: bool) -> None:
    """Give a finished file its final name, durably; without `force` never over a file that came meanwhile."""
    if force:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise BnError(f"{path} came into being meanwhile", "use --force to replace it", USAGE) from None
        except OSError:
            os.rename(temporary, path)  # a file system without hard links
        else:
            os.unlink(temporary)
    sync_folder(path.parent)


def replace_directory(temporary: Path, path: Path) -> None:
    """Give a finished directory its final name; what stood there is removed only after that."""
    sync_folder(temporary)
    old = path.parent / f".{path.name}.old-{os.getpid()}"
    existed = path.exists()
    if existed:
        os.rename(path, old)
    os.rename(temporary, path)
    sync_folder(path.parent)
    if existed:
        remove_tree(old)


def remove_tree(path: Path) -> None:
    """Remove a directory of ours, whose folders hold files only."""
    for child in path.iterdir() if path.is_dir() else ():
        if child.is_dir() and not child.is_symlink():
            remove_tree(child)
        else:
            child.unlink()
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def write_durably(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
