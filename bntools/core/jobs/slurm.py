"""Tasks as arrays of a Slurm cluster: submit, watch, take up what runs already."""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from bntools.core.errors import BnError
from bntools.core.jobs import ladder, script
from bntools.core.jobs.folder import RunFolder
from bntools.core.jobs.ladder import Ladder, Sighting
from bntools.core.jobs.outcome import Ended, exit_code
from bntools.core.jobs.placement import Placement

NUDGE = 60.0  # seconds between two requests to start a requeued task now
_USUAL = ("None", "Resources", "Priority", "BeginTime", "JobArrayTaskLimit", "Dependency", "")


class Slurm:
    """An engine of `drive`. What was submitted is in the folder's state, written before and after sbatch is called."""

    def __init__(self, folder: RunFolder, placement: Placement, note: Callable[[str], None]) -> None:
        self.folder, self.placement, self.note = folder, placement, note
        self.state = folder.state()
        self._ladder = Ladder()
        self._tasks: dict[int, tuple[str, str]] = {}  # part: id of its task, token
        self._asked = self._began = time.monotonic()
        self._nudged: dict[str, float] = {}
        self._told: set[str] = set()

    @property
    def ids(self) -> list[str]:
        return [array["id"] for array in self.state["arrays"] if array["id"]]

    def adopt(self, indices: Iterable[int]) -> set[int]:
        """Those of the parts that a task of an earlier call is still at."""
        for array in [array for array in self.state["arrays"] if not array["id"]]:
            lost = ladder.squeue(["-n", self._name(array["token"])]) or {}
            array["id"] = next((name.partition("_")[0] for name in lost), None)
        self.state["arrays"] = [array for array in self.state["arrays"] if array["id"]]
        self._write()
        if not self.ids:
            return set()
        for array in self.state["arrays"]:
            self._remember(array)
        queue = ladder.squeue(["-j", ",".join(self.ids)])
        if queue is None:
            raise BnError("squeue does not answer: are jobs of an earlier call still running?", "try again")
        alive = set()
        for index in indices:
            seen = queue.get(self._tasks[index][0]) if index in self._tasks else None
            if seen is not None and not seen.ended:
                alive.add(index)
        return alive

    def submit(self, indices: Iterable[int], mem: int | None) -> None:
        """Submit arrays for these parts. Where sbatch refuses one, those of this call are cancelled."""
        size, groups = script.array_size(), dict[int, list[int]]()
        for index in sorted(indices):
            groups.setdefault(index // size, []).append(index)
        fresh = []
        for group, members in groups.items():
            array = {"id": None, "token": uuid.uuid4().hex[:8], "offset": group * size, "indices": members,
                     "mem": mem}  # fmt: skip
            self.state["arrays"].append(array)
            self._write()
            try:
                array["id"] = script.submit(*self._script(array))
            except BnError:
                self.state["arrays"].remove(array)
                self.cancel(fresh)
                raise
            finally:
                self._write()
            fresh.append(array["id"])
            self._remember(array)

    def scripts(self, indices: Iterable[int], mem: int | None) -> str:
        """What `submit` would submit."""
        array = {"token": "PREVIEW", "offset": 0, "indices": sorted(indices), "mem": mem}
        return script.text(*self._script(array))

    def _script(self, array: dict[str, Any]) -> tuple[list[str], Any, dict[str, Any]]:
        tasks = script.ranges(index - array["offset"] for index in array["indices"])
        limit = f"%{self.placement.parallel}" if self.placement.parallel else ""
        told = script.parameters(
            self.placement, self._name(array["token"]), array["mem"], {"array": tasks + limit, **self._logs()}
        )
        command = script.task(self.folder.path, array["token"], array["offset"])
        return command, self.folder.path / "logs", told

    def _logs(self) -> dict[str, str]:
        logs = self.folder.path / "logs"
        return {"output": f"{logs}/%A_%a.log", "error": f"{logs}/%A_%a.log"}

    def _name(self, token: str) -> str:
        return f"bntools-{self.folder.plan.tool}-{token}"

    def _remember(self, array: dict[str, Any]) -> None:
        for index in array["indices"]:
            self._tasks[index] = (f"{array['id']}_{index - array['offset']}", array["token"])

    def _write(self) -> None:
        self.folder.keep_state(self.state)

    def submit_gather(self, words: list[str]) -> str:
        """A job that joins the parts once all arrays have ended well; it never starts where one has not."""
        self.state["gather_words"] = words
        self._write()
        logs = f"{self.folder.path}/logs/gather-%j.log"
        more: dict[str, Any] = {"output": logs, "error": logs}
        if self.ids:
            more |= {"dependency": "afterok:" + ":".join(self.ids), "kill-on-invalid-dep": "yes"}
        told = script.parameters(self.placement, self._name("gather"), None, more)
        self.state["gather"] = script.submit(
            script.task(self.folder.path, "gather"), self.folder.path / "logs", told
        )
        self._write()
        return self.state["gather"]

    def ended(self, waiting: Iterable[int]) -> dict[int, Ended]:
        """Tasks that ended without their part: by the exit codes they wrote, from time to time by the scheduler."""
        ended_parts, rest = dict[int, Ended](), list[tuple[int, str]]()
        for index in waiting:
            told = self._code(index)
            if told is not None:
                ended_parts[index] = told
            else:
                rest.append((index, self._tasks[index][0]))
        now = time.monotonic()
        if now - self._asked >= min(30.0, max(3.0, (now - self._began) / 8)):
            self._asked = now
            ended_parts |= self._judged(rest, now)
        return ended_parts

    def _judged(self, rest: list[tuple[int, str]], now: float) -> dict[int, Ended]:
        names = [name for _, name in rest]
        arrays = sorted({name.partition("_")[0] for name in names})
        if not arrays:
            return {}
        queue = ladder.squeue(["-j", ",".join(arrays)])
        unknown = self._ladder.unknown(names, queue)
        account = ladder.sacct(sorted({name.partition("_")[0] for name in unknown})) if unknown else {}
        for index, name in rest:
            self._look_at(index, name, (queue or {}).get(name), now)
        ended = self._ladder.judge(names, queue, account, now)
        return {index: self._code(index) or ended[name] for index, name in rest if name in ended}

    def _code(self, index: int) -> Ended | None:
        """The exit code that the last task of a part wrote, if it is not 0: of that the scheduler says how long ago."""
        told = self.folder.status(index)
        mine = told.get("token") == self._tasks[index][1]
        return Ended(exit_code(told["code"]), "") if mine and told.get("code") else None

    def _look_at(self, index: int, name: str, seen: Sighting | None, now: float) -> None:
        """Start a requeued task at once, which Slurm puts off by two minutes; say why others wait."""
        if seen is None or seen.state != "PENDING":
            return
        began = self.folder.status(index).get("token") == self._tasks[index][1]
        if seen.reason == "BeginTime" and began and now - self._nudged.get(name, -NUDGE) >= NUDGE:
            self._nudged[name] = now
            _quietly(["scontrol", "update", f"jobid={name}", "StartTime=now"])
        if seen.reason not in _USUAL and seen.reason not in self._told:
            self._told.add(seen.reason)
            self.note(f"task {name} waits: {seen.reason}")

    def finish(self) -> None:
        """Nothing to do: a task whose part is there ends by itself."""

    def cancel(self, ids: Iterable[str] | None = None) -> None:
        """scancel of these arrays, or all."""
        chosen = list(self.ids if ids is None else ids)
        if chosen:
            _quietly(["scancel", *chosen])

    def began(self, index: int) -> bool:
        """Whether a task of this part ever saw the folder."""
        return bool(self.folder.status(index))

    def log(self, index: int) -> str:
        """The scheduler's log of the last task of a part."""
        return str(self.folder.path / "logs" / f"{self._tasks[index][0]}.log")

    def pause(self) -> None:
        time.sleep(min(10.0, max(0.5, (time.monotonic() - self._began) / 50)))


def _quietly(words: list[str]) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(words, capture_output=True, timeout=60, check=False)
