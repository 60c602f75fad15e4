"""A folder of finished units: a run that was killed goes on from them, with the same bytes in the end."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bntools import __version__
from bntools.core.artifact import reader
from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError, bad_input, usage

if TYPE_CHECKING:
    from torch import Tensor

IDENTITY = "identity.json"
_SUFFIX = ".unit.safetensors"


class Work:
    """The folder given with --work.

    identity: what decides the result. A folder left by a run with another one is refused (BnError, exit 3, naming
    what differs), as is one that another process is using or that holds something else (exit 2). A unit is written
    whole under its name or not at all.
    """

    def __init__(self, folder: str, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise usage(f"cannot use {folder} as a work folder: {error.strerror}", "--work DIR") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise usage(f"another run is using {folder}", "wait for it, or take another --work DIR") from None
        try:
            self._claim(dict(identity))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs use the folder."""
        os.close(self._lock)

    def _claim(self, identity: dict[str, Any]) -> None:
        path = self.folder / IDENTITY
        for left in self.folder.glob(".*.tmp-*"):
            left.unlink()  # of a writer that was killed: the lock says it is no longer at work
        if not path.exists():
            if any(self.folder.iterdir()):
                raise usage(f"{self.folder} holds other files", "name a new or empty folder: --work DIR")
            _write(path, json.dumps(identity, indent=1).encode() + b"\n")
            return
        claim = reader.parse_json(path.read_bytes(), dict, str(path))
        wrong = first_difference(claim, json.loads(json.dumps(identity)))
        if wrong:
            raise bad_input(
                f"{self.folder} was begun with {wrong}",
                f"give the same command again, or take another --work DIR, or rm -r {self.folder}",
            )

    def _path(self, unit: str) -> Path:
        name = quote(unit, safe="")
        name = name if len(name) < 160 else name[:100] + hashlib.sha256(unit.encode()).hexdigest()[:32]
        return self.folder / (name + _SUFFIX)

    def has(self, unit: str) -> bool:
        return self._path(unit).exists()

    def save(self, unit: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a finished unit, on disk when this returns."""
        self.save_each(unit, tensors.items(), facts)

    def save_each(
        self, unit: str, tensors: Iterable[tuple[str, Tensor]], facts: Mapping[str, Any] | None = None
    ) -> None:
        """The same of tensors made one at a time."""
        with Writer(str(self._path(unit)), "unit", force=True) as out:
            for name, tensor in tensors:
                out.add(name, tensor)
            out.files = {"facts.json": json.dumps(facts or {}).encode()}

    def load(self, unit: str) -> tuple[Artifact, dict[str, Any]]:
        """A finished unit: its tensors, to be closed by the caller, and its facts."""
        artifact = reader.open_path(self._path(unit))
        return artifact, reader.parse_json(artifact.files["facts.json"], dict, str(self._path(unit)))

    def drop(self, unit: str) -> None:
        """Remove a unit that is no longer needed."""
        self._path(unit).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def identity(tool: str, source: dict[str, Any], **decides: Any) -> dict[str, Any]:
    """What a run's result depends on: tool, version, source, and what the tool adds (settings, text, seed)."""
    return {"tool": tool, "version": __version__, "source": source, **decides}


def digest_of(tensor: Tensor | None) -> str | None:
    """sha256 of a tensor's bytes."""
    if tensor is None:
        return None
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def digest_of_json(value: Mapping[str, Any]) -> str:
    """sha256 of an object, its keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str:
    """`key old, not new` for the first key on which two identities disagree; empty where they agree."""
    for key in dict.fromkeys([*old, *new]):
        name = f"{path}{key}"
        before, now = old.get(key), new.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            return first_difference(before, now, f"{name}.")
        return f"{name} {_short(before)}, not {_short(now)}"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def failed_unit(unit: str, error: BnError) -> BnError:
    """An error in reading a unit back, with the way out."""
    return BnError(f"{unit}: {error.what}", "rm -r the --work folder and start again", error.code)
