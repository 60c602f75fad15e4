"""Rows shared out to threads; every row is computed by itself, so no result depends on how many there are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def spread(work: Callable[[int, int], None], count: int, threads: int = 1) -> None:
    """work(start, stop) over 0..count in as many parts as there are threads; compiled code that drops the lock."""
    parts = max(1, min(threads, count // 16))
    if parts == 1:
        work(0, count)
        return
    ends = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, ends[:-1], ends[1:]))
