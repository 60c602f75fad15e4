"""Factors of the inputs of a matrix that even out its columns, found in the matrix alone."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.packed import exponents

STEPS = 16
"""Steps of a factor in an octave: the codes are taken with the factor as stored, so that its rounding costs nothing."""
_ROUNDS = 16
_SMALLEST = 1e-12


def balance(w: Tensor) -> Tensor:
    """Bytes [in] of the factors c of W [out, in], see `packed.factors`: W is coded as W / c.

    The standard deviations of rows and of columns are set to 1 in turn, for up to 16 rounds; kept are the factors of
    the round with the smallest imbalance, the largest standard deviation of a row or column over the smallest one
    (Sinkhorn normalisation, SINQ, arXiv 2509.22944). Deviations: factors are a byte and not float16, with geometric
    mean 1; those of the rows are dropped, a group has a scale of its own.
    """
    work = w.double()
    total = torch.zeros(w.shape[1], dtype=torch.float64)  # logarithms of the columns' factors
    best, lowest = total, float("inf")
    for _ in range(_ROUNDS):
        work = work / _deviations(work, 1)[:, None]
        columns = _deviations(work, 0)
        imbalance = float(columns.max() / columns.min())  # every row is 1
        if imbalance < lowest:
            best, lowest = total, imbalance
        total = total + columns.log2()
        work = work / columns
    return exponents((best - best.mean()).exp2(), STEPS)


def _deviations(work: Tensor, axis: int) -> Tensor:
    return work.square().mean(axis).sqrt().clamp_min(_SMALLEST)
