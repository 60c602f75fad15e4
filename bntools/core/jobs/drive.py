"""From missing parts to finished ones: submit, wait, try again, and say what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from bntools.core.errors import FAILED, BnError
from bntools.core.jobs.folder import RunFolder
from bntools.core.jobs.outcome import FINAL, Ended
from bntools.core.jobs.placement import Placement


class Engine(Protocol):
    """Where tasks run."""

    @property
    def ids(self) -> list[str]: ...
    def adopt(self, indices: Iterable[int]) -> set[int]: ...
    def submit(self, indices: Iterable[int], mem: int | None) -> None: ...
    def ended(self, waiting: Iterable[int]) -> dict[int, Ended]: ...
    def finish(self) -> None: ...
    def cancel(self, ids: Iterable[str] | None = None) -> None: ...
    def began(self, index: int) -> bool: ...
    def log(self, index: int) -> str: ...
    def pause(self) -> None: ...


def memory(placement: Placement) -> int | None:
    """Bytes of --mem."""
    from bntools.core.system.sizes import parse_bytes

    return parse_bytes(placement.mem, "--mem") if placement.mem else None


class Drive:
    """One run: `retries` of each part are counted from the start of this call."""

    def __init__(
        self, folder: RunFolder, engine: Engine, placement: Placement, note: Callable[[str], None]
    ) -> None:
        self.folder, self.engine, self.note = folder, engine, note
        self.limit, self.mem = placement.retries, memory(placement)
        self.retries: dict[int, int] = {}
        self._grown: dict[int, int] = {}  # part: bytes of memory of its next task
        self._failed: dict[int, Ended] = {}

    def start(self, missing: Iterable[int]) -> None:
        """Submit what no task of an earlier call is at."""
        alive = self.engine.adopt(missing)
        fresh = sorted(set(missing) - alive)
        if fresh:
            self.engine.submit(fresh, self.mem)

    def wait(self, missing: Iterable[int], advance: Callable[[int], None]) -> None:
        """Until every part is there. Raises BnError for a task that failed for good; the others are cancelled."""
        waiting = set(missing)
        while waiting:
            ended = self.engine.ended(waiting)
            done = self.folder.done(
                waiting
            )  # after the look at the tasks: a part is there before its task ends
            advance(len(done))
            waiting -= done
            lost = {index: end for index, end in ended.items() if index in waiting}
            self._repair(lost)
            waiting -= self._failed.keys()
            if any(end.final for end in self._failed.values()):
                self.engine.cancel()
                break
            if waiting and not ended:
                self.engine.pause()
        if self._failed:
            raise self._failure()
        self.engine.finish()

    def _repair(self, lost: dict[int, Ended]) -> None:
        """Submit again what may succeed, those of one size of memory together."""
        again: dict[int | None, list[int]] = {}
        for index, end in lost.items():
            if end.final or self.retries.get(index, 0) >= self.limit or not self.engine.began(index):
                self._failed[index] = end
                continue
            self.retries[index] = self.retries.get(index, 0) + 1
            mem = self._grown.get(index, self.mem)
            if end.starved and mem is not None:
                mem = self._grown[index] = 2 * mem
            self.note(f"part {index}: {end}; try {self.retries[index]} of {self.limit}")
            again.setdefault(mem, []).append(index)
        for mem, indices in again.items():
            self.engine.submit(indices, mem)

    def _failure(self) -> BnError:
        index, end = min(self._failed.items(), key=lambda found: (not found[1].final, found[0]))
        where = str(self.folder.path)
        if not self.engine.began(index):
            return BnError(
                f"part {index}: its task ended without having seen {where} ({end})",
                f"is that folder, and this Python, visible on the nodes? {self.engine.log(index)}",
            )
        others = f", and {len(self._failed) - 1} more" if len(self._failed) > 1 else ""
        lines = self.folder.error_lines(index)
        told = "".join(f"\n  {line}" for line in lines)
        code = end.code if end.code in FINAL else FAILED
        log = f"{where}/logs/{index}.err" if lines else self.engine.log(index)
        hint = f"the part by hand: {self.folder.plan.by_hand(index, where)}"
        return BnError(f"part {index} failed{others}: {end} ({log}){told}", hint, code)

    def summary(self, began: float) -> dict[str, Any]:
        """What the parts took, for the line on standard error."""
        facts = [self.folder.status(index) for index in range(self.folder.plan.jobs)]
        return {
            "array": self.engine.ids,
            "retries": sum(self.retries.values()),
            "seconds": round(time.monotonic() - began, 3),
            "cpu_seconds": round(sum(fact.get("cpu_seconds", 0.0) for fact in facts), 3),
            "restarts": sum(fact.get("restarts", 0) for fact in facts),
        }


def describe(folder: RunFolder, missing: list[int]) -> dict[str, Any]:
    """The report of --no-wait and --dry-run: what is done, what is not."""
    state, tokens = folder.state(), dict[int, str]()
    for array in state["arrays"]:
        tokens |= dict.fromkeys(array["indices"], array["token"])
    counts = dict.fromkeys(("done", "running", "pending", "failed"), 0)
    counts["done"] = folder.plan.jobs - len(missing)
    for index in missing:
        told = folder.status(index)
        mine = told.get("token") == tokens.get(index)
        key = "failed" if "code" in told and mine else "running" if "token" in told and mine else "pending"
        counts[key] += 1
    return {
        "kind": "jobs", "tool": folder.plan.tool, "work": str(folder.path), "jobs": folder.plan.jobs,
        "missing": missing, "array": [array["id"] for array in state["arrays"] if array["id"]],
        "gather": state.get("gather"), "state": counts,
    }  # fmt: skip
