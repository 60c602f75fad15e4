"""Levels of a matrix and the bits that refine them, chosen together: what is read of a weight is good at every depth.

A weight is (q + sum_l (b_l - 1/2) 2^-l) steps, read down to any depth: q alone, with b_1, with b_1 and b_2. Chosen one
depth after the other, each would be the best for itself and leave more than its cell to the next. Here one weight is
moved at a time, through all its depths at once, to the least sum over the depths of their squared errors in H.
Matrices lie as in `kernels.scalar`: [in, out].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.scalar import LAZY, Floats, _jit


def multiples(levels: NDArray[np.int16], bits: NDArray[np.int16], planes: int, depth: int) -> Floats:
    """The weights in steps [in, out], read down to a depth. bits: of `planes` planes, the first the highest."""
    moves = ((bits >> (planes - depth)) + np.float32(0.5)) * np.float32(2.0**-depth) - np.float32(0.5)
    return (levels + moves).astype(np.float32, copy=False)


def descend(
    levels: NDArray[np.int16], bits: NDArray[np.int16], planes: int, gradients: Sequence[Tensor], hessian: Tensor,
    steps: Floats, weights: Floats, scale: float, row_class: NDArray[np.int16], col_class: NDArray[np.int16],
    price: Floats,
) -> None:  # fmt: skip
    """One round of coordinate descent, the last input first, in place; a level moves by one at most.

    gradients: (x - W) H [in, out] of each depth, 0 to `planes`, kept true; W may be another one at each. weights: of
    the depths' errors. scale, row_class, col_class and price as in `scalar.descend`.
    sum_l weights[l] tr(E_l H E_l^T) + scale * price of the levels never rises.
    """
    every = np.zeros((planes + 1, LAZY, levels.shape[1]), np.float32)
    for stop in range(len(levels), 0, -LAZY):
        start = max(stop - LAZY, 0)
        changes, here = every[:, : stop - start], np.stack([part.numpy()[start:stop] for part in gradients])
        _descend(
            levels, bits, planes, here, hessian.numpy(), changes, start, stop, steps, weights,
            np.float32(1 / scale), row_class, col_class, price,
        )  # fmt: skip
        for gradient, new, change in zip(gradients, here, changes, strict=True):
            moved = torch.from_numpy(change)
            gradient[start:stop] = torch.from_numpy(new)
            gradient[:start].addmm_(hessian[:start, start:stop], moved)
            gradient[stop:].addmm_(hessian[stop:, start:stop], moved)


@_jit
def _value(q, code, planes, depth):  # pragma: no cover - compiled
    cell = np.float32(1) / np.float32(1 << depth)
    return np.float32(q) + (np.float32(code >> (planes - depth)) + np.float32(0.5)) * cell - np.float32(0.5)


@_jit
def _search(
    q, planes, want, weights, offset, best, center, total, path, tried
):  # pragma: no cover - compiled
    """The code of the least sum below `best` for a level, and that sum; -1 where there is none.

    offset: what the level costs by itself. Depth first, the nearer cell before the farther one; what is beyond the best
    is left. The last four are room for what is on the way down.
    """
    found, depth = -1, 1
    center[0], total[0], path[0], tried[1] = np.float32(q), offset, 0, 0
    if planes == 0:
        return 0, offset
    while depth > 0:
        if tried[depth] == 2:
            depth -= 1
            continue
        up = want[depth] > center[depth - 1]
        if tried[depth] == 1:
            up = not up
        tried[depth] += 1
        move = np.float32(0.5) / np.float32(1 << depth)
        place = center[depth - 1] + (move if up else -move)
        here = total[depth - 1] + weights[depth] * (place - want[depth]) * (place - want[depth])
        if here >= best:
            tried[depth] = 2  # the farther cell costs more
        elif depth == planes:
            best, found = here, 2 * path[depth - 1] + (1 if up else 0)
        else:
            center[depth], total[depth], path[depth] = place, here, 2 * path[depth - 1] + (1 if up else 0)
            depth += 1
            tried[depth] = 0
    return found, best


@_jit
def _descend(
    levels, bits, planes, gradients, hessian, changes, start, stop, steps, weights, scale, row_class, col_class,
    price,
):  # pragma: no cover - compiled # fmt: skip
    depths = planes + 1
    room = np.empty((5, depths), np.float32)
    old, want, local, center, total = room[0], room[1], room[2], room[3], room[4]
    path, tried = np.empty(depths, np.int64), np.empty(depths + 1, np.int64)
    for at in range(stop - 1, start - 1, -1):
        step, here = steps[at], at - start
        curve = np.float32(1) / (hessian[at, at] * step)
        for depth in range(depths):
            local[depth] = weights[depth] * hessian[at, at] * step * step * scale
        for r in range(levels.shape[1]):
            k = min(max(int(row_class[r]) + int(col_class[at]), 0), 63)
            q, code = int(levels[at, r]), int(bits[at, r])
            best = price[k, min(abs(q), 127)]
            for depth in range(depths):
                old[depth] = _value(q, code, planes, depth)
                want[depth] = old[depth] - gradients[depth, here, r] * curve
                best += local[depth] * (old[depth] - want[depth]) * (old[depth] - want[depth])
            best *= np.float32(1 - 1e-5)  # a draw is no gain
            new = q
            for turn in range(3):  # the level at hand first
                other = q + (0, -1, 1)[turn]
                away = np.float32(other) - want[0]
                offset = local[0] * away * away + price[k, min(abs(other), 127)]
                if offset < best:
                    found, best = _search(
                        other, planes, want, local, offset, best, center, total, path, tried
                    )
                    if found >= 0:
                        new, code = other, found
            levels[at, r], bits[at, r] = np.int16(new), np.int16(code)
            for depth in range(depths):
                changes[depth, here, r] = (_value(new, code, planes, depth) - old[depth]) * step
        for depth in range(depths):
            for k in range(start, stop):
                h = hessian[at, k]
                for r in range(levels.shape[1]):
                    gradients[depth, k - start, r] += h * changes[depth, here, r]
