"""Work shared out so that no result depends on the number of threads."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from bntools.core.system.import_hooks import uncollected

_SWITCH = 0.0005  # seconds
_local = threading.local()
Job = TypeVar("Job")
Done = TypeVar("Done")


@contextlib.contextmanager
def single_threaded() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """A pool of as many workers as torch has threads, each operation then on one: (pool, workers).

    A library that splits one product over several threads may sum it in another order. So the parts are cut by the
    caller, each is computed by one thread, and they are put together in an order of their own.
    Inside of another such context of this thread, there are as many workers as in that.
    """
    outer: int | None = getattr(_local, "workers", None)
    workers = outer or torch.get_num_threads()
    _local.workers = workers
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool, workers
    finally:
        pool.shutdown(cancel_futures=True)
        _local.workers = outer
        torch.set_num_threads(1 if outer else workers)


def in_order(
    work: Callable[[Job], Done], jobs: Sequence[Job], size: Callable[[Job], int], limit: int
) -> Iterator[Done]:
    """`work` of each job, in order, one a thread; jobs at once hold at most `limit` bytes, or are one."""
    pending: deque[tuple[Future[Done], int]] = deque()
    with single_threaded() as (pool, workers):
        for job in jobs:
            held = sum(bytes_ for _, bytes_ in pending)
            while pending and (len(pending) >= workers or held + size(job) > limit):
                future, bytes_ = pending.popleft()
                held -= bytes_
                yield future.result()
            pending.append((pool.submit(work, job), size(job)))
        while pending:
            yield pending.popleft()[0].result()


@contextlib.contextmanager
def ahead(work: Callable[[str], Done], names: Sequence[str]) -> Iterator[Callable[[str], Done]]:
    """`work` of each name begun now, in order, on as many threads as torch has; what a name gave, when it is there.

    For work in compiled loops beside other work of the interpreter, such as the import of a large library: threads
    get the interpreter back ten times as often as they otherwise would. What is asked for a second time is made again.
    """

    def result(name: str) -> Done:
        future = futures.pop(name, None)
        return future.result() if future else work(name)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, _SWITCH))
    pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {name: pool.submit(work, name) for name in names}
        with uncollected():
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        sys.setswitchinterval(interval)
