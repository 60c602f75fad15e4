"""fetch: a named model or data set, or a hub id, as a directory that is there whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bntools.core.datasets.cache import cached, cached_path
from bntools.core.errors import BnError, require, usage
from bntools.core.model import side_files
from bntools.core.model.folders import check_folder
from bntools.tools.fetch.catalog import Item, lookup
from bntools.tools.fetch.clients import download

RENDERED = "render"
"""The client of sets that are made here: nothing is downloaded or cached."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.safetensors", *side_files.PATTERNS, "LICENSE*"]

Progress = Callable[[str], None]
Report = dict[str, object]


def fetch(name: str, out: Path, *, force: bool = False, progress: Progress | None = None) -> Report:
    """Put a catalog entry, or the safetensors model of a hub id `org/name`, into the directory `out`.

    Archives stay in the cache, checked by sha256; a model converted from one is converted anew each time.
    Returns the report: kind, name, path, files, bytes, source, licence, sha256 of the archive, seconds.
    Raises BnError: exit 2 for an unknown name or an existing `out` without `force`; exit 5 for a missing
    client or package; exit 1 when the network fails or another archive comes than the known one. On any error
    `out` is as before.
    """
    started, say = time.monotonic(), progress or (lambda text: None)
    item = None if "/" in name else lookup(name)
    if item is None and not _HUB_ID.fullmatch(name):
        raise usage(f"{name!r} is neither a known name nor a hub id", "bntools fetch --list")
    with new_directory(out, force) as folder:
        fetched = _from_hub(name, folder, say) if item is None else _from_catalog(item, folder, say)
        check_folder(folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    report: Report = {"kind": "fetch", "name": name, "path": str(out), "files": len(files), "bytes": size}
    return report | fetched | {"seconds": round(time.monotonic() - started, 3)}


def is_cached(item: Item) -> bool:
    """Whether the archive is in the cache (its content is checked when it is used)."""
    if item.client == RENDERED:
        return True
    with suppress(BnError):  # no cache at all holds nothing
        return cached_path(item.archive, item.sha256).is_file()
    return False


def archive(item: Item, say: Progress) -> Path:
    """The archive of a catalog entry, from the cache or downloaded into it."""

    def produce(path: Path) -> None:
        say(f"downloading {item.source} with {item.client} ({item.size / 1e6:.0f} MB)")
        download(item.client, f"{item.source} {item.flags}".strip(), item.suffix, path)

    return cached(item.archive, item.sha256, produce)


def _from_catalog(item: Item, folder: Path, say: Progress) -> Report:
    if item.needs:
        require(item.needs, item.needs)
    if item.client == RENDERED:
        say(f"rendering {item.name}")
        item.unpack(folder, folder)
        return {"source": item.source, "client": item.client, "licence": item.licence, "sha256": None}
    path = archive(item, say)
    say(f"unpacking {item.archive}")
    item.unpack(path, folder)
    return {"source": item.source, "client": item.client, "licence": item.licence, "sha256": item.sha256}


def _from_hub(name: str, folder: Path, say: Progress) -> Report:
    """Copy what the hub's own client keeps in its own cache; pickled weights are never asked for."""
    hub = require("huggingface_hub", "hub")
    say(f"downloading {name} from the hub")
    try:
        snapshot = Path(hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the client raises errors of several libraries
        first = (str(error) or type(error).__name__).splitlines()[0][:160]
        hint = "is the network there? is the name right? does the model ask for a login (hf auth login)?"
        raise BnError(f"cannot get {name} from the hub: {first}", hint) from error
    check_folder(snapshot)
    shutil.copytree(snapshot, folder, dirs_exist_ok=True)
    if not any(folder.glob("*.safetensors")):
        raise BnError(f"{name} has no safetensors weights", "convert it first: pickled weights can run code")
    return {"source": name, "client": "hub", "licence": "see the model card", "revision": snapshot.name}


@contextmanager
def new_directory(out: Path, force: bool) -> Iterator[Path]:
    """An empty directory beside `out` that takes its place on a clean exit and vanishes on any error.

    An existing `out` is replaced only with `force`, and only when it holds no file that the new one lacks.
    """
    path = Path(os.path.realpath(out))
    if not path.parent.is_dir():
        raise usage(f"no folder {path.parent} to put {path.name} in", f"mkdir -p {path.parent}")
    if path.exists() and not path.is_dir():
        raise usage(f"{out} is a file", "choose another directory")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise usage(f"{out} exists and is not empty", "use --force to replace it")
    fresh, old = (path.parent / f".{path.name}.{what}-{os.getpid()}" for what in ("tmp", "old"))
    try:
        fresh.mkdir()
        yield fresh
        foreign = sorted(_names(path) - _names(fresh))
        if foreign:
            raise usage(f"{out} also holds {foreign[0]}, which would be lost", "choose another directory")
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    except OSError as error:
        raise BnError(f"cannot write {out}: {error.strerror or error}", "choose another directory") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
