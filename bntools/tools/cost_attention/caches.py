"""Fully associative caches over a trace of addresses: first in first out, least recently used, and the ideal one.

Fetches and write-backs are counted, in lines. A first write to a line allocates it without a fetch; what was written
is written back when it leaves, or at the end.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

jit: Any = numba.njit(cache=True)


def queue(
    addresses: NDArray[np.int64], writes: NDArray[np.bool_], lines: int, room: int, recent: bool
) -> int:
    """Lines moved with `room` residents; recent: a use moves a line to the end of the queue (LRU), or not (FIFO)."""
    return int(_queue(addresses, writes, lines, room, recent))


def ideal(addresses: NDArray[np.int64], writes: NDArray[np.bool_], lines: int, room: int) -> int:
    """Lines moved when the one used again last leaves first (Belady 1966): fewest fetches any policy can have."""
    return int(_ideal(addresses, writes, next_uses(addresses, lines), lines, room))


@jit
def next_uses(addresses, lines):
    """For each access, when its line is used next; for the last use of a line a time after all, each its own."""
    count = len(addresses)
    following, latest = np.empty(count, np.int64), np.full(lines, -1)
    for at in range(count - 1, -1, -1):
        x = addresses[at]
        following[at] = latest[x] if latest[x] >= 0 else count + x
        latest[x] = at
    return following


@jit
def _queue(addresses, writes, lines, room, recent):
    before, after = np.full(lines + 1, lines), np.full(lines + 1, lines)  # a ring; `lines` is its head
    resident, dirty, known = np.zeros(lines, np.bool_), np.zeros(lines, np.bool_), np.zeros(lines, np.bool_)
    held = moved = 0
    for at in range(len(addresses)):
        x = addresses[at]
        hit = resident[x]
        if hit and recent:
            after[before[x]], before[after[x]] = after[x], before[x]
        if not hit:
            if held == room:
                old = after[lines]
                after[lines], before[after[old]] = after[old], lines
                resident[old] = False
                moved += dirty[old]
                dirty[old] = False
                held -= 1
            held += 1
            moved += known[x] or not writes[at]
            resident[x] = known[x] = True
        if recent or not hit:
            last = before[lines]
            after[last], before[x], after[x], before[lines] = x, last, lines, x
        dirty[x] |= writes[at]
    return moved + dirty.sum()


@jit
def _ideal(addresses, writes, following, lines, room):
    heap = np.empty(
        len(addresses) + 1, np.int64
    )  # times of next use, the latest on top; stale ones are skipped
    use = np.full(lines, -1)
    resident, dirty, known = np.zeros(lines, np.bool_), np.zeros(lines, np.bool_), np.zeros(lines, np.bool_)
    size = held = moved = 0
    count = len(addresses)
    for at in range(count):
        x = addresses[at]
        if not resident[x]:
            if held == room:
                while True:
                    top = heap[0]
                    size -= 1
                    heap[0] = heap[size]
                    _sink(heap, size)
                    old = top - count if top >= count else addresses[top]
                    if resident[old] and use[old] == top:
                        break
                resident[old] = False
                moved += dirty[old]
                dirty[old] = False
                held -= 1
            held += 1
            moved += known[x] or not writes[at]
            resident[x] = known[x] = True
        dirty[x] |= writes[at]
        use[x] = following[at]
        heap[size] = following[at]
        size += 1
        _rise(heap, size - 1)
    return moved + dirty.sum()


@jit
def _rise(heap, at):
    value = heap[at]
    while at > 0:
        parent = (at - 1) // 2
        if heap[parent] >= value:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = value


@jit
def _sink(heap, size):
    if size == 0:
        return
    value, at = heap[0], 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value
