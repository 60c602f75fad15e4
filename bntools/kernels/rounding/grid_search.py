"""The scale and zero of each group, among those its metadata can express: searched before coding, refitted after.

Matrices lie as in `feedback`, a column of W contiguous: [in, out]; the scales and zeros of a group of columns are
a row [out].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from bntools.kernels.grouped.coded_scales import Meta
from bntools.kernels.rounding.feedback import each


def _jit(function: Callable[..., Any]) -> Any:
    """Compiled without regard for signed zeros; what multiplies and adds may be fused."""
    options = {"cache": True, "nogil": True, "error_model": "numpy"}
    return numba.njit(function, fastmath={"contract", "nsz"}, **options)


_TILE = 64
"""Rows of W worked on at a time: the sums of a group over them stay in the first-level cache."""
_REACH = 2
"""Scale codes that a refit tries on either side."""


@dataclass
class Fit:
    """Grids of all groups: logarithms of the scales, in steps, and zero codes, [groups, out] int32.

    lowest: the smallest of those logarithms in reach of each row's codes [out].
    """

    index: Tensor
    zeros: Tensor
    lowest: Tensor


def search(w: Tensor, importance: Tensor, width: int, meta: Meta, threads: int) -> Fit:
    """The grids with the least sum_j h_j (w_j - v_j)^2, v rounded to nearest; all groups of a row in one window.

    w: [in, out] float32. importance: h [in]. width: columns of a group. Every scale within the window of a row
    and three octaves is tried with all four zeros of 2 bits; of more, with the middle of the group's range, then
    twice the least squares.
    """
    count, outs = w.shape
    groups = -(-count // width)
    top = 2**meta.bits - 1
    highest = (w.abs().amax(0).clamp_min(1e-30) * (2 / top)).log2().mul(meta.steps).ceil().int() + 1
    tried = meta.count + 3 * meta.steps
    highest = highest.clamp_min(meta.lowest + tried)
    error, codes = torch.empty(groups, tried, outs), torch.empty(groups, tried, outs, dtype=torch.int32)
    arrays = [x.contiguous().numpy() for x in (w, importance.float(), highest, error, codes)]
    shape = (width, meta.steps, meta.count, np.float32(meta.middle), np.float32(meta.step), np.float32(top))
    each(outs, threads, lambda low, high: _search(*arrays, *shape, low, high))
    windows = torch.stack(
        [error[:, at : at + meta.count].amin(1).sum(0) for at in range(tried - meta.count + 1)]
    )
    first = windows.argmin(0)  # highest index of each row's window, counted down from `highest`
    within = (first + torch.arange(meta.count)[:, None]).expand(groups, -1, -1)
    best = within.gather(1, error.gather(1, within).argmin(1, keepdim=True))
    zeros = codes.gather(1, best)[:, 0]
    return Fit(highest - best[:, 0].int(), zeros, (highest - first - (meta.count - 1)).int())


def refit(
    values: Tensor, gradient: Tensor, hessian: Tensor, levels: Tensor, width: int, meta: Meta, fit: Fit, threads: int
) -> None:  # fmt: skip
    """Scales and zeros anew, group by group, the codes as they are: tr(E H E^T) never rises.

    values, gradient: What and (What - W) H, [in, out], updated, as is `fit`. levels [in, out]: where the codes
    lie, value = scale (level - zero). A group takes the scale and zero near its own that change the error most, by
    the exact quadratic form.
    """
    count, outs = values.shape
    highest = fit.lowest + (meta.count - 1)
    shape = (meta.steps, meta.count, np.float32(meta.middle), np.float32(meta.step))
    for group, start in enumerate(range(0, count, width)):
        stop = min(start + width, count)
        changes = torch.empty(stop - start, outs)
        arrays = [
            x.numpy()
            for x in (
                values, gradient, hessian, levels, fit.index[group], fit.zeros[group], fit.lowest, highest, changes
            )
        ]  # fmt: skip
        each(outs, threads, lambda low, high, a=arrays, s=start, e=stop: _refit(*a, s, e, *shape, low, high))
        gradient.addmm_(hessian[:, start:stop], changes)


@_jit
def _search(w, h, highest, error, codes, width, steps, count, middle, step, top, low, high):
    for left in range(low, high, _TILE):
        right = min(left + _TILE, high)
        for group in range(error.shape[0]):
            start, stop = group * width, min((group + 1) * width, w.shape[0])
            _group(
                w, h, highest, error[group], codes[group], steps, count, middle, step, top, start, stop, left, right
            )  # fmt: skip


@_jit
def _group(w, h, highest, error, codes, steps, count, middle, step, top, start, stop, left, right):
    """Errors and zero codes [tried, out] of one group with each scale, for rows left to right of W."""
    n = right - left
    center, mass = _center(w, start, stop, left, right), np.float32(1e-30)
    z, inverse = np.empty(n, np.float32), np.empty(n, np.float32)
    total, shift = np.empty(n, np.float32), np.empty(n, np.float32)
    for j in range(start, stop):
        mass += h[j]
    for i in range(error.shape[0]):
        for r in range(n):
            inverse[r] = np.float32(2.0 ** (-(highest[left + r] - i) / steps))
            z[r] = -center[r] * inverse[r]
            error[i, left + r] = np.float32(3e38)
        for attempt in range(count if count <= 4 else 3):
            for r in range(n):
                wish = np.float32(attempt - count // 2) if count <= 4 else z[r] / step
                z[r] = middle + step * _offset(wish, count)
            _distances(w, h, start, stop, left, z, inverse, top, total, shift)
            for r in range(n):
                loss = total[r] / (inverse[r] * inverse[r])
                if loss < error[i, left + r]:
                    error[i, left + r] = loss
                    codes[i, left + r] = np.int32(np.rint((z[r] - middle) / step)) + count // 2
                z[r] = shift[r] / mass - middle


@_jit
def _offset(wish, count):
    """The nearest offset of a zero from the middle, in steps, that `count` codes express."""
    return min(max(np.rint(wish), np.float32(-(count // 2))), np.float32(count - count // 2 - 1))


@_jit
def _center(w, start, stop, left, right):
    n = right - left
    low, high = w[start, left:right].copy(), w[start, left:right].copy()
    for j in range(start + 1, stop):
        for r in range(n):
            low[r] = min(low[r], w[j, left + r])
            high[r] = max(high[r], w[j, left + r])
    for r in range(n):
        low[r] = (low[r] + high[r]) * np.float32(0.5)
    return low


@_jit
def _distances(w, h, start, stop, left, z, inverse, top, total, shift):
    """Sums over a group of h e^2 and h (code - w / scale), in steps."""
    n = len(z)
    for r in range(n):
        total[r], shift[r] = np.float32(0.0), np.float32(0.0)
    for j in range(start, stop):
        weight, column = h[j], w[j, left : left + n]
        for r in range(n):
            x = column[r] * inverse[r]
            k = min(max(np.rint(x + z[r]), np.float32(0.0)), top)
            e = x + z[r] - k
            total[r] += weight * e * e
            shift[r] += weight * (k - x)


@_jit
def _refit(
    values, gradient, hessian, levels, index, codes, lowest, highest, changes, start, stop,
    steps, count, middle, step, low, high,
):  # fmt: skip
    for left in range(low, high, _TILE):
        n = min(left + _TILE, high) - left
        a, b, c, gl, g1 = _form(hessian, gradient, levels, start, stop, left, n)
        ds, dt = np.empty(n, np.float32), np.empty(n, np.float32)
        for r in range(n):
            i0, z0, best = index[left + r], codes[left + r], np.float32(0.0)
            s0 = np.float32(2.0 ** (i0 / steps))
            t0 = s0 * (middle + (z0 - count // 2) * step)
            ds[r], dt[r] = np.float32(0.0), np.float32(0.0)
            for i in range(max(i0 - _REACH, lowest[left + r]), min(i0 + _REACH, highest[left + r]) + 1):
                s = np.float32(2.0 ** (i / steps))
                offset = _offset(((t0 + ((s - s0) * b[r] + g1[r]) / c) / s - middle) / step, count)
                x, y = s - s0, s * (middle + offset * step) - t0
                gain = x * x * a[r] - 2 * x * y * b[r] + y * y * c + 2 * (x * gl[r] - y * g1[r])
                if gain < best:
                    best, ds[r], dt[r] = gain, x, y
                    index[left + r], codes[left + r] = i, np.int32(offset) + count // 2
        for j in range(stop - start):
            for r in range(n):
                change = ds[r] * levels[start + j, left + r] - dt[r]
                changes[j, left + r] = change
                values[start + j, left + r] += change


@_jit
def _form(hessian, gradient, levels, start, stop, left, n):
    """L H L, L H 1, 1 H 1, L g and 1 g of one group, L its levels: what a change of scale and offset costs."""
    a, b = np.zeros(n, np.float32), np.zeros(n, np.float32)
    gl, g1 = np.zeros(n, np.float32), np.zeros(n, np.float32)
    c, row = np.float32(0.0), np.empty(n, np.float32)
    for j in range(start, stop):
        ones = np.float32(0.0)
        row[:] = np.float32(0.0)
        for k in range(start, stop):
            h = hessian[j, k]
            ones += h
            for r in range(n):
                row[r] += h * levels[k, left + r]
        c += ones
        for r in range(n):
            level, g = levels[j, left + r], gradient[j, left + r]
            a[r] += level * row[r]
            b[r] += level * ones
            gl[r] += level * g
            g1[r] += g
    return a, b, c, gl, g1
