"""The fast Walsh-Hadamard transform: H x with H of entries +-1, in place, two passes over memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

_INNER = 1 << 13
"""Values transformed while they lie in L1 (32 KiB in float32)."""
_STRIP = 64
"""Columns taken together through the outer stages: four cache lines, so that a strip of 2^11 rows fits L2."""

Floats = NDArray[np.float32]


def fwht(x: Floats, threads: int = 1) -> Floats:
    """H x for x [n] float32, n a power of two, in place; returns x. H is symmetric and H H = n I.

    The stages inside 8,192 neighbours run in L1, the outer ones on strips of 64 columns in L2. Every value is
    computed by the same operations whatever `threads` is. Moves 16 n bytes and adds n log2 n times.
    Raises ValueError if n is no power of two.
    """
    n = x.size
    if n & (n - 1) or not n:
        raise ValueError(f"length {n} is not a power of two")
    inner = min(n, _INNER)
    _spread(lambda a, b: _blocks(x[a * inner : b * inner], inner), n // inner, threads)
    if n > inner:
        width = min(_STRIP, inner)
        matrix = x.reshape(n // inner, inner)
        _spread(lambda a, b: _strips(matrix, a * width, b * width, width), inner // width, threads)
    return x


def _spread(work, units: int, threads: int) -> None:
    """Call work(first, last) over all units, on several threads where that is asked for."""
    threads = min(threads, units, os.cpu_count() or 1)
    if threads < 2:
        work(0, units)
        return
    edges = [units * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


@numba.njit(cache=True, nogil=True)
def transform(x: Floats) -> None:
    """`fwht` of a short vector, callable from compiled code."""
    n = x.size
    if n >= 8:
        for i in range(0, n, 8):
            a0, a1, a2, a3 = x[i], x[i + 1], x[i + 2], x[i + 3]
            a4, a5, a6, a7 = x[i + 4], x[i + 5], x[i + 6], x[i + 7]
            b0, b1, b2, b3 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
            b4, b5, b6, b7 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
            a0, a1, a2, a3 = b0 + b2, b1 + b3, b0 - b2, b1 - b3
            a4, a5, a6, a7 = b4 + b6, b5 + b7, b4 - b6, b5 - b7
            x[i], x[i + 1], x[i + 2], x[i + 3] = a0 + a4, a1 + a5, a2 + a6, a3 + a7
            x[i + 4], x[i + 5], x[i + 6], x[i + 7] = a0 - a4, a1 - a5, a2 - a6, a3 - a7
        h = 8
    else:
        h = 1
    while h < n:
        if 2 * h < n:
            for i in range(0, n, 4 * h):
                _quad(x[i : i + h], x[i + h : i + 2 * h], x[i + 2 * h : i + 3 * h], x[i + 3 * h : i + 4 * h])
            h *= 4
        else:
            for i in range(0, n, 2 * h):
                _pair(x[i : i + h], x[i + h : i + 2 * h])
            h *= 2


@numba.njit(inline="always")
def _pair(a: Floats, b: Floats) -> None:
    for j in range(a.size):
        low, high = a[j], b[j]
        a[j] = low + high
        b[j] = low - high


@numba.njit(inline="always")
def _quad(a: Floats, b: Floats, c: Floats, d: Floats) -> None:
    for j in range(a.size):
        p, q = a[j] + b[j], a[j] - b[j]
        r, s = c[j] + d[j], c[j] - d[j]
        a[j] = p + r
        b[j] = q + s
        c[j] = p - r
        d[j] = q - s


@numba.njit(cache=True, nogil=True)
def _blocks(x: Floats, size: int) -> None:
    for start in range(0, x.size, size):
        transform(x[start : start + size])


@numba.njit(cache=True, nogil=True)
def _strips(matrix: Floats, first: int, last: int, width: int) -> None:
    """Transform the columns first ... last - 1 of a matrix along its rows."""
    rows = matrix.shape[0]
    strip = np.empty((rows, width), np.float32)
    for column in range(first, last, width):
        for row in range(rows):
            strip[row, :] = matrix[row, column : column + width]
        h = 1
        while h < rows:
            if 2 * h < rows:
                for i in range(0, rows, 4 * h):
                    for j in range(i, i + h):
                        _quad(strip[j], strip[j + h], strip[j + 2 * h], strip[j + 3 * h])
                h *= 4
            else:
                for i in range(0, rows, 2 * h):
                    for j in range(i, i + h):
                        _pair(strip[j], strip[j + h])
                h *= 2
        for row in range(rows):
            matrix[row, column : column + width] = strip[row, :]
