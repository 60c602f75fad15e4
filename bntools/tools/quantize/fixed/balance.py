"""Factors of the inputs of a matrix that even out its columns, found in the matrix alone."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.packing.grouped import exponents
from bntools.tools.quantize.settings import BALANCE_STEPS

_ROUNDS = 16


def balance(w: Tensor) -> Tensor:
    """Bytes [in] of the factors c of W [out, in], see `packed.factors`: W is coded as W / c.

    The standard deviations of rows and of columns are set to 1 in turn, for up to 16 rounds; kept are the factors of
    the round with the smallest imbalance, the largest standard deviation of a row or column over the smallest one
    (Sinkhorn normalisation, SINQ, arXiv 2509.22944). Deviations: factors are a byte and not float16, with median 1;
    those of the rows are dropped, a group has a scale of its own; means are taken as 0.
    """
    squares = w.double().square()
    weights = torch.ones(w.shape[1], dtype=torch.float64)  # 1 / c^2
    best, lowest = torch.zeros_like(weights), float("inf")
    for _ in range(_ROUNDS):
        rows = _positive(squares @ weights / w.shape[1])
        columns = _positive(weights * (rows.reciprocal() @ squares) / w.shape[0])  # every row is 1
        imbalance = float(columns.max() / columns.min())
        if imbalance < lowest:
            best, lowest = -weights.log2() / 2, imbalance
        weights = weights / columns
    return exponents((best - best.median()).exp2(), BALANCE_STEPS)


def _positive(squares: Tensor) -> Tensor:
    """Mean squares, 1 where all are 0."""
    return torch.where(squares > 0, squares, 1.0)
