"""The folder of a run in parts: its plan, its finished parts, what became of each task.

plan.json          what is run; a folder of another run is refused
parts/I.*          finished parts: a part that is there is whole
units/             what tasks keep of unfinished parts
status/I.json      the last task of part I: its token, host and, once ended, its exit code
logs/              standard error of tasks, scripts and logs of the scheduler
state.json         the arrays that were submitted
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bntools.core.artifact import reader
from bntools.core.errors import BnError, bad_input, usage
from bntools.core.jobs.plan import RunPlan
from bntools.core.work.folder import first_difference

PLAN, STATE = "plan.json", "state.json"
FOLDERS = ("parts", "units", "status", "logs")


class RunFolder:
    """`claim` makes or continues it and keeps other drivers out; tasks only `open` it."""

    def __init__(self, path: str, plan: RunPlan) -> None:
        self.path = Path(os.path.abspath(path))
        self.plan = plan
        self.lock: int | None = None
        self._seen: dict[int, tuple[tuple[int, int], dict[str, Any]]] = {}

    @classmethod
    def open(cls, path: str) -> RunFolder:
        """The folder as a task sees it. Raises BnError (exit 3) where it holds no plan."""
        file = Path(path) / PLAN
        try:
            told = reader.parse_json(file.read_bytes(), dict, str(file))
        except OSError as error:
            raise bad_input(f"{file}: {error.strerror}", "is the --work folder visible here?") from None
        return cls(path, RunPlan.from_json(told, str(file)))

    def claim(self) -> None:
        """Write the plan, or compare it with the one there. Raises BnError: exit 2 if in use, 3 if of another run."""
        try:
            for name in FOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise usage(f"cannot use {self.path} as --work: {error.strerror}", "--work DIR") from None
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise usage(
                f"another command waits for the jobs of {self.path}", "let it, or take another --work DIR"
            ) from None
        self.compare()
        if not (self.path / PLAN).exists():
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            write_json(self.path / PLAN, {**self.plan.as_json(), "created": now})

    def compare(self) -> None:
        """Raise BnError where the folder holds the plan of another run (exit 3), or other files (exit 2)."""
        file = self.path / PLAN
        if not file.exists():
            others = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
            left = [name for name in others if name not in FOLDERS and not name.startswith(".input")]
            if left:
                raise usage(f"{self.path} holds other files: {left[0]}", "name a new or empty folder")
            return
        old = RunPlan.from_json(reader.parse_json(file.read_bytes(), dict, str(file)), str(file))
        plans = [{"tool": plan.tool, "jobs": plan.jobs, **plan.identity} for plan in (old, self.plan)]
        wrong = first_difference(plans[0], json.loads(json.dumps(plans[1])))
        if wrong:
            hint = f"the same command again, or another --work DIR, or rm -r {self.path}"
            raise bad_input(f"{self.path} was begun with {wrong}", hint)

    def close(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def part(self, index: int) -> Path:
        return self.path / "parts" / f"{index}.{'json' if self.plan.ledger else 'safetensors'}"

    def done(self, indices: Iterable[int]) -> set[int]:
        """Those of the parts that are there; one listing of the folder."""
        with contextlib.suppress(FileNotFoundError):
            names = set(os.listdir(self.path / "parts"))
            return {index for index in indices if self.part(index).name in names}
        return set()

    def missing(self) -> list[int]:
        """Parts still to be made. Files of another plan, damaged or under a wrong name are deleted."""
        absent = []
        for index in range(self.plan.jobs):
            path = self.part(index)
            if path.exists() and not self._whole(path, index):
                path.unlink()
            if not path.exists():
                absent.append(index)
        return absent

    def _whole(self, path: Path, index: int) -> bool:
        if self.plan.ledger:
            return True
        try:
            with reader.open_path(path) as part:
                told = part.json("bntools.part", dict)
        except BnError:
            return False
        mine = told.get("plan", self.plan.digest) == self.plan.digest
        return mine and (told.get("index"), told.get("of")) == (index, self.plan.jobs)

    def status(self, index: int) -> dict[str, Any]:
        """What the last task of a part wrote; empty where none began. Read again only when the file has changed."""
        path = self.path / "status" / f"{index}.json"
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if index not in self._seen or self._seen[index][0] != stamp:
                self._seen[index] = (stamp, json.loads(path.read_bytes()))
        except (OSError, ValueError):
            return {}
        return self._seen[index][1]

    def state(self) -> dict[str, Any]:
        """What was submitted."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads((self.path / STATE).read_bytes())
            if isinstance(state, dict) and isinstance(state.get("arrays"), list):
                return state
        return {"arrays": [], "gather": None}

    def keep_state(self, state: Mapping[str, Any]) -> None:
        write_json(self.path / STATE, state)

    def sweep(self) -> None:
        """Remove what killed writers have left beside the parts, once no task is at work."""
        for left in (self.path / "parts").glob(".*.tmp-*"):
            left.unlink(missing_ok=True)

    def error_lines(self, index: int, count: int = 20) -> list[str]:
        """The first lines of a task's standard error."""
        with contextlib.suppress(OSError):
            return (self.path / "logs" / f"{index}.err").read_text(errors="replace").splitlines()[:count]
        return []


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A file that is whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with open(temporary, "w") as file:
        json.dump(value, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
