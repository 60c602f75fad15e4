"""Unbounded integer levels of a matrix, each chosen for its error and its price in bits, in the order of feedback.

Matrices lie with an input contiguous: [in, out], inputs in the order of coding. Rows of W do not see each other, so
every loop runs along them and vectorizes; what a run of inputs changes in those outside of it is one matrix product.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.entropy import rans

Floats = NDArray[np.float32]
LAZY = 64
"""Inputs whose effect is gathered before it reaches the rest of the matrix."""
_jit: Any = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")
_PRICED = 128


def prices(weight: float, middle: int, classes: int) -> Floats:
    """What a level of size |q| < 128 costs in each class, in squared steps: [64, 128].

    The weights of a class k have a mean size of 2^((k - middle) / classes) steps and are taken to follow Laplace's
    law. Reverse
    water-filling pays D = step^2 / 12 for a rate whose slope is -2 ln 2 D, so a bit is worth ln 2 / 6 squared steps;
    weight 1 is that exchange, 0 prices nothing.
    """
    mean = 2.0 ** ((np.arange(rans.CLASSES) - middle) / classes)[:, None]
    size = np.arange(_PRICED)[None]
    ratio = np.exp(-1 / mean)  # of the chances of two neighbouring levels
    zero = 1 - np.exp(-0.5 / mean)
    rest = np.exp(-0.5 / mean) * (1 - ratio) / 2  # of one sign, at |q| = 1
    with np.errstate(divide="ignore"):
        chance = np.where(
            size == 0, np.log2(zero), np.log2(np.maximum(rest, 1e-300)) - (size - 1) / mean / np.log(2)
        )
    return (-weight * np.log(2) / 6 * chance).astype(np.float32)


def feedback(
    w: Tensor, factor: Tensor, steps: Floats, row_class: NDArray[np.int16], col_class: NDArray[np.int16],
    price: Floats,
) -> NDArray[np.int16]:  # fmt: skip
    """Levels [in, out] under GPTQ's feedback (arXiv 2210.17323, algorithm 1): (t / step - q)^2 + price is the least.

    w [in, out] float32. factor: upper U with H^-1 = U^T U. steps [in]. Offered are the nearest level, the next one
    towards 0, and 0. Levels beyond 32000 are clipped.
    """
    rows, levels = w.clone(memory_format=torch.contiguous_format), np.empty(tuple(w.shape), np.int16)
    for start in range(0, len(rows), LAZY):
        stop = min(start + LAZY, len(rows))
        errors = torch.empty(stop - start, rows.shape[1])
        _feed(
            rows.numpy(),
            factor.numpy(),
            steps,
            row_class,
            col_class,
            price,
            levels,
            errors.numpy(),
            start,
            stop,
        )
        rows[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return levels


def descend(
    levels: NDArray[np.int16], gradient: Tensor, hessian: Tensor, steps: Floats, scale: float,
    row_class: NDArray[np.int16], col_class: NDArray[np.int16], price: Floats,
) -> None:  # fmt: skip
    """One round of coordinate descent, the last input first, in place: each level anew, all others as they are.

    gradient (What - W) H [in, out] is kept true. scale: squared error in H that equals one squared step, alpha^2.
    tr(E H E^T) + scale * price never rises.
    """
    count = len(levels)
    for stop in range(count, 0, -LAZY):
        start = max(stop - LAZY, 0)
        changes = torch.empty(stop - start, levels.shape[1])
        arrays = (levels, gradient.numpy(), hessian.numpy(), changes.numpy(), start, stop)
        _descend(*arrays, steps, np.float32(1 / scale), row_class, col_class, price)
        gradient[:start].addmm_(hessian[:start, start:stop], changes)
        gradient[stop:].addmm_(hessian[stop:, start:stop], changes)


@_jit
def _choose(x, weight, price):  # pragma: no cover - compiled
    """The level of least weight (x - q)^2 + price[|q|] among the nearest, the next towards 0, and 0."""
    x = min(max(x, np.float32(-32000)), np.float32(32000))
    near = np.rint(x)
    sign = np.float32(1) if near >= 0 else np.float32(-1)
    size = sign * near
    inner = max(size - np.float32(1), np.float32(0))
    place = sign * x
    best = size
    least = weight * (place - size) * (place - size) + price[min(int(size), 127)]
    other = weight * (place - inner) * (place - inner) + price[min(int(inner), 127)]
    if other < least:
        best, least = inner, other
    if weight * place * place + price[0] < least:
        best = np.float32(0)
    return sign * best


@_jit
def _feed(rows, factor, steps, row_class, col_class, price, levels, errors, start, stop):  # pragma: no cover
    for at in range(start, stop):
        step, inverse, pivot = steps[at], np.float32(1) / steps[at], np.float32(1) / factor[at, at]
        for r in range(rows.shape[1]):
            k = min(max(int(row_class[r]) + int(col_class[at]), 0), 63)
            q = _choose(rows[at, r] * inverse, np.float32(1), price[k])
            levels[at, r] = np.int16(q)
            errors[at - start, r] = (rows[at, r] - q * step) * pivot
        for k in range(at + 1, stop):
            u = factor[at, k]
            for r in range(rows.shape[1]):
                rows[k, r] -= u * errors[at - start, r]


@_jit
def _descend(
    levels, gradient, hessian, changes, start, stop, steps, scale, row_class, col_class, price
):  # pragma: no cover - compiled
    for at in range(stop - 1, start - 1, -1):
        step, inverse = steps[at], np.float32(1) / steps[at]
        curve = np.float32(1) / hessian[at, at]
        weight = hessian[at, at] * step * step * scale
        for r in range(levels.shape[1]):
            k = min(max(int(row_class[r]) + int(col_class[at]), 0), 63)
            old = np.float32(levels[at, r])
            q = _choose(old - gradient[at, r] * curve * inverse, weight, price[k])
            size = abs(q)
            kept = weight * _square(gradient[at, r] * curve * inverse) + price[k, min(int(abs(old)), 127)]
            moved = (
                weight * _square(old - gradient[at, r] * curve * inverse - q) + price[k, min(int(size), 127)]
            )
            q = q if moved < kept else old  # the level at hand need not be among those offered
            levels[at, r] = np.int16(q)
            changes[at - start, r] = (q - old) * step
        for k in range(start, stop):
            h = hessian[at, k]
            for r in range(levels.shape[1]):
                gradient[k, r] += h * changes[at - start, r]


@_jit
def _square(x):  # pragma: no cover - compiled
    return x * x
