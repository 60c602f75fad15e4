"""What the scheduler says of tasks, with or without its accounting: never wait for one that nobody knows any more.

A part that is there is done, a task that wrote its exit code has ended: no scheduler is asked. Else squeue, which lists
ended tasks for MinJobAge seconds; else sacct, where accounting is on; a task that neither knows at two looks FORGOTTEN
seconds apart is lost.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bntools.core.jobs.outcome import CANCELLED, OUT_OF_MEMORY, Ended

FORGOTTEN = 30.0  # seconds
GRACE = 15.0  # seconds that a network file system may take to show what a task has written
SILENCE = 3600.0  # seconds without an answer after which waiting ends
_ENDS = {
    "COMPLETED": 0, "FAILED": None, "TIMEOUT": None, "OUT_OF_MEMORY": OUT_OF_MEMORY, "NODE_FAIL": None,
    "BOOT_FAIL": None, "DEADLINE": None, "PREEMPTED": None, "REVOKED": None, CANCELLED: None,
}  # fmt: skip


class Sighting(NamedTuple):
    """A line of squeue or sacct."""

    state: str
    reason: str

    @property
    def ended(self) -> bool:
        return self.state in _ENDS or (self.state == "PENDING" and "launch failed" in self.reason.lower())


class Ladder:
    """Remembers when a task was first missed. Times are seconds of any clock."""

    def __init__(self) -> None:
        self._missed: dict[str, float] = {}
        self._finished: dict[str, float] = {}
        self._heard: float | None = None

    def judge(
        self,
        ids: Iterable[str],
        queue: Mapping[str, Sighting] | None,
        account: Mapping[str, Sighting],
        now: float,
    ) -> dict[str, Ended]:
        """Those of the tasks that have ended; queue: None where squeue gave no answer."""
        if self._heard is None or queue is not None:
            self._heard = now
        ended = {}
        for name in ids:
            seen = (queue or {}).get(name) or account.get(name)
            if queue is None and seen is None:
                if now - self._heard > SILENCE:
                    ended[name] = Ended(None, "the scheduler does not answer")
                continue
            verdict = self._verdict(name, seen, now)
            if verdict is not None:
                ended[name] = verdict
        return ended

    def _verdict(self, name: str, seen: Sighting | None, now: float) -> Ended | None:
        if seen is None:
            lost = now - self._missed.setdefault(name, now) >= FORGOTTEN
            return Ended(None, "the scheduler forgot it") if lost else None
        self._missed.pop(name, None)
        if not seen.ended:
            self._finished.pop(name, None)
            return None
        if seen.state == "COMPLETED":
            if now - self._finished.setdefault(name, now) < GRACE:
                return None
            return Ended(0, "it left no part")
        return Ended(_ENDS.get(seen.state), seen.state)

    def unknown(self, ids: Iterable[str], queue: Mapping[str, Sighting] | None) -> list[str]:
        """Tasks for which accounting is asked."""
        return [] if queue is None else [name for name in ids if name not in queue]


def squeue(arguments: Iterable[str]) -> dict[str, Sighting] | None:
    """Tasks by id, `123_4` or `123`; one call for all of them. None: no answer."""
    done = _call(["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r", *arguments])
    if done is None:
        return None
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    return _parse(done.stdout)


def sacct(arrays: Iterable[str]) -> dict[str, Sighting]:
    """The same from accounting; empty where that is off."""
    done = _call(["sacct", "-X", "-n", "-P", "-o", "JobID,State,Reason", "-j", ",".join(arrays)])
    return _parse(done.stdout) if done is not None and done.returncode == 0 else {}


def _call(words: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _parse(text: str) -> dict[str, Sighting]:
    sightings = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if state:
            sightings[name] = Sighting(state.split()[0].rstrip("+"), reason)  # `CANCELLED by 0`
    return sightings
