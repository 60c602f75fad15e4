"""Tasks as processes of this machine, forked from one that has imported the libraries."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from bntools.core.errors import FAILED
from bntools.core.jobs.folder import RunFolder, write_json
from bntools.core.jobs.outcome import Ended, exit_code
from bntools.core.jobs.task import die_with, environment

Main = Callable[[list[str]], int]


class Local:
    """An engine of `drive`. main: runs one command line and returns its exit code; parallel: tasks at a time."""

    ids: list[str] = []  # noqa: RUF012 - nothing of ours outlives the driver

    def __init__(self, folder: RunFolder, main: Main, parallel: int) -> None:
        self.folder, self.main, self.parallel = folder, main, parallel
        self._queue: list[int] = []
        self._running: dict[int, tuple[int, float]] = {}  # process: part, start

    def adopt(self, indices: Iterable[int]) -> set[int]:
        return set()

    def submit(self, indices: Iterable[int], mem: int | None) -> None:
        self._queue += sorted(indices)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._running) < self.parallel:
            index = self._queue.pop(0)
            self._running[self._fork(index)] = (index, time.time())

    def _fork(self, index: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        driver = os.getpid()
        child = os.fork()
        if child:
            return child
        code = FAILED
        try:
            die_with(driver)
            self.folder.close()
            code = self._child(index)
        finally:
            os._exit(code)

    def _child(self, index: int) -> int:
        plan, logs = self.folder.plan, self.folder.path / "logs"
        for fd, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, f"{logs}/{index}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, f"{logs}/{index}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            opened = os.open(path, flags, 0o666)
            os.dup2(opened, fd)
            os.close(opened)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.update(environment(plan.cpus, plan.digest))
        os.environ.pop("BNTOOLS_ON", None)
        os.chdir(plan.cwd)
        words = plan.words(index, str(self.folder.path))
        sys.argv = ["bntools", *words]
        code = self.main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        if plan.ledger and code == 0:
            os.replace(logs / f"{index}.out", self.folder.part(index))
        return code

    def ended(self, waiting: Iterable[int]) -> dict[int, Ended]:
        ended_parts = self._reap(os.WNOHANG)
        self._fill()
        return ended_parts

    def _reap(self, how: int) -> dict[int, Ended]:
        statuses = {}
        for process, (index, began) in list(self._running.items()):
            done, status, spent = os.wait4(process, how)
            if not done:
                continue
            del self._running[process]
            code = os.waitstatus_to_exitcode(status)
            facts: dict[str, Any] = {"code": code, "seconds": round(time.time() - began, 3), "restarts": 0,
                                     "cpu_seconds": round(spent.ru_utime + spent.ru_stime, 3)}  # fmt: skip
            write_json(self.folder.path / "status" / f"{index}.json", facts)
            statuses[index] = Ended(exit_code(code), "")
        return statuses

    def finish(self) -> None:
        """Let tasks whose parts are there come to their end."""
        self._reap(0)

    def cancel(self, ids: Iterable[str] | None = None) -> None:
        """End the running tasks and wait for them."""
        self._queue.clear()
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        for process in self._running:
            os.waitpid(process, 0)
        self._running.clear()

    def began(self, index: int) -> bool:
        return True

    def log(self, index: int) -> str:
        return str(self.folder.path / "logs" / f"{index}.err")

    def pause(self) -> None:
        time.sleep(0.05)
