"""How many bits each coordinate of a vector is worth, and which coordinates share a byte."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

BYTE = 8
LLOYD_MAX = (1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 0.000644, 0.000164, 0.0000415)
"""Mean squared error of the best scalar quantizer of a unit Gaussian by bits (Max 1960, table I, and its trend)."""


class Groups(NamedTuple):
    """Coordinates in the order of the bytes that hold them, `order` [d], and where each byte starts [bytes + 1]."""

    order: Indices
    start: Indices


def rates(variance: Floats, bits: float, most: float = BYTE) -> Floats:
    """Bits of each coordinate [D] by reverse water-filling: half the log2 of variance over the level, 0 to `most`.

    The sum is `bits`, or less where every coordinate with variance has `most` (Cover and Thomas, section 10.3.3).
    """
    alive = variance > variance.max(initial=0.0) * 1e-12
    result = np.zeros(len(variance))
    if not alive.any():
        return result
    logs = 0.5 * np.log2(variance[alive])
    low, high = logs.min() - most, logs.max()
    for _ in range(60):
        level = 0.5 * (low + high)
        low, high = (level, high) if np.clip(logs - level, 0, most).sum() > bits else (low, level)
    result[alive] = np.clip(logs - high, 0, most)
    return result


def share(variance: Floats, count: int) -> Groups:
    """Coordinates shared out over `count` bytes so that each byte is worth about the same; worthless ones left out.

    Largest first, each to the byte with the fewest bits so far. Fewer bytes result where coordinates are fewer.
    """
    worth = rates(variance, BYTE * count)
    members: list[list[int]] = [[] for _ in range(count)]
    heap = [(0.0, byte) for byte in range(count)]
    for index in np.argsort(-worth, kind="stable"):
        if worth[index] <= 0:
            break
        total, byte = heapq.heappop(heap)
        members[byte].append(int(index))
        heapq.heappush(heap, (total + float(worth[index]), byte))
    return join([m for m in members if m])


def whole_bits(variance: Floats, bits: int) -> Indices:
    """Whole bits of each coordinate [D], 0 to 8, summing to `bits`: each to where it lessens the error most."""
    result = np.zeros(len(variance), np.int64)
    heap = [(-float(v) * (LLOYD_MAX[0] - LLOYD_MAX[1]), i) for i, v in enumerate(variance) if v > 0]
    heapq.heapify(heap)
    for _ in range(min(bits, BYTE * len(heap))):
        _, i = heapq.heappop(heap)
        result[i] += 1
        if result[i] < BYTE:
            gain = float(variance[i]) * (LLOYD_MAX[result[i]] - LLOYD_MAX[result[i] + 1])
            heapq.heappush(heap, (-gain, i))
    return result


def pack(bits: Indices, count: int) -> tuple[Groups, Indices]:
    """Coordinates with whole bits put into `count` bytes, first fit, most bits first, and the bits that fitted.

    A coordinate that fits nowhere gets what the emptiest byte has left.
    """
    members: list[list[int]] = [[] for _ in range(count)]
    room, fitted = np.full(count, BYTE), np.zeros(len(bits), np.int64)
    for index in np.argsort(-bits, kind="stable"):
        if bits[index] == 0:
            break
        fits = np.flatnonzero(room >= bits[index])
        byte = int(fits[0]) if len(fits) else int(room.argmax())
        fitted[index] = min(int(bits[index]), int(room[byte]))
        if fitted[index] > 0:
            members[byte].append(int(index))
            room[byte] -= fitted[index]
    return join([m for m in members if m]), fitted


def join(members: list[list[int]]) -> Groups:
    """The groups that lists of coordinates describe."""
    start = np.cumsum([0] + [len(m) for m in members])
    return Groups(np.array([i for m in members for i in m], np.int64), start.astype(np.int64))
