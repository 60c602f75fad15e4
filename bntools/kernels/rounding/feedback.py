"""Columns of a matrix coded one after the other, each with regard to the rest: GPTQ's feedback, coordinate descent.

Matrices lie with a column of W contiguous: [in, out]. Rows of W do not see each other, so they are dealt to
threads in segments; within one the work runs along the segment and vectorizes. What a block of columns changes in
the columns outside of it is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from bntools.kernels.grouped import fixed_rate_trellis as trellis

LAZY = 64
"""Columns whose effect is gathered before it reaches the rest of the matrix."""
_jit: Any = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")


@dataclass(frozen=True)
class ColumnLevels:
    """Where codes lie: value = scale (level - zero), level = code, or as `fixed_trellis` has it where memory is not 0.

    scales, zeros: [groups, out] float32. group: int64 [in], the group of each column. bits: of a code.
    """

    scales: Tensor
    zeros: Tensor
    group: Tensor
    bits: int
    memory: int = 0

    def arguments(self, w: Tensor) -> tuple[Any, ...]:
        """What the compiled loops take. Raises ValueError where it does not fit W [in, out]: they do not look."""
        fits = self.scales.shape == self.zeros.shape and self.scales.shape[1:] == w.shape[1:]
        if not fits or len(self.group) != len(w) or int(self.group.max()) >= len(self.scales):
            raise ValueError(f"scales {list(self.scales.shape)} and groups do not fit W {list(w.shape)}")
        arrays = (
            self.scales.contiguous().numpy(),
            self.zeros.contiguous().numpy(),
            self.group.contiguous().numpy(),
        )
        branch = trellis.branches(self.memory) if self.memory else np.zeros(0, np.int64)
        return *arrays, 2**self.bits - 1, self.memory, branch


def feedback(w: Tensor, factor: Tensor, levels: ColumnLevels, threads: int = 1) -> tuple[Tensor, Tensor]:
    """Codes uint8 and values [in, out] of the columns of W, each error made up for by the columns after it.

    w: [in, out] float32, columns of W in the order of the factor. factor: upper U with H^-1 = U^T U.
    (GPTQ, arXiv 2210.17323, algorithm 1; with a trellis the whole segment of a column is coded at once.)
    """
    rows, codes, rest = w.clone(memory_format=torch.contiguous_format), _codes(w), levels.arguments(w)
    factor = factor.contiguous()
    for start in range(0, len(rows), LAZY):
        stop = min(start + LAZY, len(rows))
        errors = torch.empty(stop - start, rows.shape[1])
        arrays = (rows.numpy(), factor.numpy(), codes.numpy(), errors.numpy(), start, stop)
        each(rows.shape[1], threads, lambda low, high, a=arrays: _feed(*a, low, high, *rest))
        rows[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return codes, rows


def nearest(w: Tensor, levels: ColumnLevels, threads: int = 1) -> tuple[Tensor, Tensor]:
    """Codes uint8 and values [in, out] without regard to other columns."""
    rows, codes, rest = w.clone(memory_format=torch.contiguous_format), _codes(w), levels.arguments(w)
    each(rows.shape[1], threads, lambda low, high: _alone(rows.numpy(), codes.numpy(), low, high, *rest))
    return codes, rows


def _codes(w: Tensor) -> Tensor:
    return torch.empty(w.shape, dtype=torch.uint8)


def descend(
    values: Tensor, gradient: Tensor, hessian: Tensor, codes: Tensor, levels: ColumnLevels, threads: int = 1
) -> None:
    """One round of coordinate descent over the columns, in place: each column anew, all others as they are.

    values, gradient: What and (What - W) H, [in, out]; codes [in, out] uint8. A column's best target is
    what_j - g_j / H_jj. tr(E H E^T) never rises: the codes a column has are among those it is offered.
    """
    count, rest = len(values), levels.arguments(values)
    for start in range(0, count, LAZY):
        stop = min(start + LAZY, count)
        changes = torch.empty(stop - start, values.shape[1])
        given = (
            values.numpy(),
            gradient.numpy(),
            hessian.numpy(),
            codes.numpy(),
            changes.numpy(),
            start,
            stop,
        )
        each(values.shape[1], threads, lambda low, high, a=given: _descend(*a, low, high, *rest))
        gradient[:start].addmm_(hessian[:start, start:stop], changes)
        gradient[stop:].addmm_(hessian[stop:, start:stop], changes)


def each(count: int, threads: int, work: Callable[[int, int], None], segment: int = trellis.SEGMENT) -> None:
    """Do `work` on every segment of rows of W, `threads` at a time."""
    parts = [(low, min(low + segment, count)) for low in range(0, count, segment)]
    if threads == 1 or len(parts) == 1:
        for low, high in parts:
            work(low, high)
        return
    with ThreadPoolExecutor(min(threads, len(parts))) as pool:
        for done in [pool.submit(work, low, high) for low, high in parts]:
            done.result()


@_jit
def _feed(rows, factor, codes, errors, start, stop, low, high, scales, zeros, group, top, memory, branch):
    scratch = np.empty(high - low, np.float32)
    for at in range(start, stop):
        s, z = scales[group[at], low:high], zeros[group[at], low:high]
        column, error = rows[at, low:high], errors[at - start, low:high]
        _code(column, s, z, top, memory, branch, codes[at, low:high], scratch)
        inverse = np.float32(1.0) / factor[at, at]
        for r in range(high - low):
            error[r] = (column[r] - scratch[r]) * inverse
            column[r] = scratch[r]
        for k in range(at + 1, stop):
            u, other = factor[at, k], rows[k, low:high]
            for r in range(high - low):
                other[r] -= u * error[r]


@_jit
def _alone(rows, codes, low, high, scales, zeros, group, top, memory, branch):
    scratch = np.empty(high - low, np.float32)
    for at in range(len(rows)):
        s, z = scales[group[at], low:high], zeros[group[at], low:high]
        _code(rows[at, low:high], s, z, top, memory, branch, codes[at, low:high], scratch)
        for r in range(high - low):
            rows[at, low + r] = scratch[r]


@_jit
def _descend(
    values, gradient, hessian, codes, changes, start, stop, low, high, scales, zeros, group, top, memory, branch
):  # fmt: skip
    scratch = np.empty(high - low, np.float32)
    target = np.empty(high - low, np.float32)
    for at in range(start, stop):
        value, change, slope = values[at, low:high], changes[at - start, low:high], gradient[at, low:high]
        inverse = np.float32(1.0) / hessian[at, at]
        for r in range(high - low):
            target[r] = value[r] - slope[r] * inverse
        s, z = scales[group[at], low:high], zeros[group[at], low:high]
        _code(target, s, z, top, memory, branch, codes[at, low:high], scratch)
        for r in range(high - low):
            change[r] = scratch[r] - value[r]
            value[r] = scratch[r]
        for k in range(start, stop):
            h, other = hessian[at, k], gradient[k, low:high]
            for r in range(high - low):
                other[r] += h * change[r]


@_jit
def _code(x, scales, zeros, top, memory, branch, codes, values):
    """Codes and values of one segment x of a column."""
    if memory > 0:
        _path(x, scales, zeros, top, memory, branch, codes, values)
        return
    highest = np.float32(top)
    for r in range(len(x)):
        whole = np.floor(zeros[r])
        level = np.rint(x[r] / scales[r] + (zeros[r] - whole)) + whole
        level = min(max(level, np.float32(0.0)), highest)
        codes[r] = np.uint8(level)
        values[r] = (level - zeros[r]) * scales[r]


@_jit
def _path(x, scales, zeros, top, memory, branch, codes, values):
    """The path with the least squared error through the trellis (Viterbi's algorithm)."""
    count, half = len(x), 1 << (memory - 1)
    old, new = np.full(2 * half, np.float32(1e30)), np.empty(2 * half, np.float32)
    old[0] = 0.0
    nearest, cost = np.empty((4, count), np.float32), np.empty((4, count), np.float32)
    _nearest(x, scales, zeros, np.float32(top), nearest, cost)
    taken = np.empty((count, 2 * half), np.uint8)
    m = np.empty(4, np.float32)
    for t in range(count):
        for d in range(4):
            m[d] = cost[d, t]
        for q in range(half):
            e = branch[q]
            a, b = m[e], m[e ^ 2]
            keep, drop = old[q] + a, old[q + half] + b
            taken[t, 2 * q] = drop < keep
            new[2 * q] = min(keep, drop)
            keep, drop = old[q] + b, old[q + half] + a
            taken[t, 2 * q + 1] = drop < keep
            new[2 * q + 1] = min(keep, drop)
        old, new = new, old
    state = int(np.argmin(old))
    for t in range(count - 1, -1, -1):
        u = state & 1
        oldest = taken[t, state]
        q = state >> 1
        d = branch[q] ^ (2 * (u ^ oldest))
        state = q + half * oldest
        level = nearest[d, t]
        codes[t] = np.uint8((int(level) & 254) | u)
        values[t] = (level + np.float32(0.5) * (d & 1) - np.float32(0.25) - zeros[t]) * scales[t]


@_jit
def _nearest(x, scales, zeros, top, nearest, cost):
    """For each of the subsets 2 x + p: the nearest code of parity x, and the squared error with it."""
    for d in range(4):
        odd = np.float32(d >> 1)
        shift = np.float32(0.25) - np.float32(0.5) * np.float32(d & 1)
        highest = top - np.float32(1.0) + odd
        for r in range(len(x)):
            y = x[r] / scales[r] + zeros[r] + shift
            level = np.float32(2.0) * np.rint((y - odd) * np.float32(0.5)) + odd
            level = min(max(level, odd), highest)
            nearest[d, r] = level
            error = (y - level) * scales[r]
            cost[d, r] = error * error
