"""Running jobs: the ledger is asked first, the rest goes to worker processes of one thread each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

from bntools.tools.intrinsic_dim.ledger import Ledger
from bntools.tools.intrinsic_dim.problem import Problem, Source, identity, open_problem
from bntools.tools.intrinsic_dim.runs import Job, Outcome, Run

Step = Callable[[Run], None]
_worker: Problem | None = None


class Runner:
    """Finishes lists of jobs and returns their runs in the order asked, whatever order they end in.

    workers: processes, each with one thread; with 1 the jobs run in this process. Results do not depend on it.
    """

    def __init__(self, source: Source, problem: Problem, ledger: Ledger, workers: int, step: Step) -> None:
        self.problem, self.ledger, self.step = problem, ledger, step
        self.name = identity(source, problem)
        self._source, self._workers = source, workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._pool is not None:
            if kind is not None:
                for process in list(getattr(self._pool, "_processes", {}).values()):
                    process.terminate()
            self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def known(self, job: Job) -> Run | None:
        """The ledger's run for this job; one that was given up counts only for a target no lower than then."""
        entry = self.ledger.runs.get(job.key(self.name))
        if entry is None or not entry.outcome.stopped:
            return entry
        before = entry.job.target
        return entry if job.target is not None and before is not None and job.target >= before else None

    def __call__(self, jobs: Sequence[Job]) -> list[Run]:
        """Run what the ledger does not have, keep every run as soon as it is finished."""
        jobs = list(dict.fromkeys(jobs))
        done: dict[Job, Run] = {}
        missing = []
        for job in jobs:
            found = self.known(job)
            if found is None:
                missing.append(job)
            else:
                done[job] = Run(job, found.outcome, found.key)
        for job, outcome in self._outcomes(missing):
            run = Run(job, outcome, job.key(self.name))
            self.ledger.add(run)
            self.step(run)
            done[job] = run
        return [done[job] for job in jobs]

    def _outcomes(self, jobs: list[Job]) -> Iterator[tuple[Job, Outcome]]:
        if self._workers < 2 or len(jobs) < 2:
            for job in jobs:
                yield job, self.problem.run(job, self._start(job))
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, _prepare, (self._source,))
        waiting = {self._pool.submit(_work, job, self._start(job)): job for job in jobs}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()

    def _start(self, job: Job) -> Any:
        """Dimension and end point of the run that this one continues."""
        if job.start is None:
            return None
        before = self.ledger.runs[job.start]
        return before.job.dim, before.outcome.point


def _prepare(source: Source) -> None:
    """In a new worker: one thread, and the problem made once. Interrupts are for the parent, which ends us."""
    import signal

    import torch

    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker = open_problem(source)


def _work(job: Job, start: Any) -> Outcome:
    assert _worker is not None
    return _worker.run(job, start)
