"""One-bit refinement planes: every weight moves by plus or minus a given half step, the signs chosen jointly.

A plane is coded like a matrix with two levels a weight: GPTQ's feedback, then coordinate descent inside the cell.
Where the sign would follow from the place of the weight in its cell, errors of the plane before would be left as they
are; chosen jointly the plane also undoes what they do together. Matrices lie as in `kernels.scalar`: [in, out].
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.entropy.unbounded_levels import LAZY, Floats, _jit


def feedback(residual: Tensor, factor: Tensor, half: Floats) -> NDArray[np.int8]:
    """Signs +1 or -1 [in, out], each input's error made up for by those after it.

    residual [in, out] float32: what is to be reached. factor: upper U with H^-1 = U^T U. half [in]: size of a move.
    """
    rows = residual.clone(memory_format=torch.contiguous_format)
    signs = np.empty(tuple(rows.shape), np.int8)
    for start in range(0, len(rows), LAZY):
        stop = min(start + LAZY, len(rows))
        errors = torch.empty(stop - start, rows.shape[1])
        _feed(rows.numpy(), factor.numpy(), half, signs, errors.numpy(), start, stop)
        rows[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return signs


def descend(signs: NDArray[np.int8], gradient: Tensor, hessian: Tensor, half: Floats) -> None:
    """One round of coordinate descent, the last input first, in place; tr((x - R) H (x - R)^T) never rises.

    gradient (x - R) H [in, out], with x = signs * half, is kept true.
    """
    for stop in range(len(signs), 0, -LAZY):
        start = max(stop - LAZY, 0)
        changes = torch.empty(stop - start, signs.shape[1])
        _descend(signs, gradient.numpy(), hessian.numpy(), half, changes.numpy(), start, stop)
        gradient[:start].addmm_(hessian[:start, start:stop], changes)
        gradient[stop:].addmm_(hessian[stop:, start:stop], changes)


@_jit
def _feed(rows, factor, half, signs, errors, start, stop):  # pragma: no cover - compiled
    for at in range(start, stop):
        move, pivot = half[at], np.float32(1) / factor[at, at]
        for r in range(rows.shape[1]):
            up = rows[at, r] > 0
            signs[at, r] = np.int8(1) if up else np.int8(-1)
            errors[at - start, r] = (rows[at, r] - (move if up else -move)) * pivot
        for k in range(at + 1, stop):
            u = factor[at, k]
            for r in range(rows.shape[1]):
                rows[k, r] -= u * errors[at - start, r]


@_jit
def _descend(signs, gradient, hessian, half, changes, start, stop):  # pragma: no cover - compiled
    for at in range(stop - 1, start - 1, -1):
        move, curve = half[at], np.float32(1) / hessian[at, at]
        for r in range(signs.shape[1]):
            old = np.float32(signs[at, r])
            new = np.float32(1) if old * move - gradient[at, r] * curve > 0 else np.float32(-1)
            signs[at, r] = np.int8(new)
            changes[at - start, r] = (new - old) * move
        for k in range(start, stop):
            h = hessian[at, k]
            for r in range(signs.shape[1]):
                gradient[k, r] += h * changes[at - start, r]


def pack(signs: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Rows of bits from signs [in, out]: [out, ceil(in / 8)], bit j mod 8 of byte j // 8 set where input j moves up."""
    return np.packbits(np.ascontiguousarray(signs.T) > 0, axis=1, bitorder="little")
