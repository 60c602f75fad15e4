"""GPTQ: codes of one matrix, each column's rounding error compensated by the columns still to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.kernels.grouped.bits import pack
from bntools.kernels.grouped.operations import Packed
from bntools.kernels.rounding import cholesky, column_grids
from bntools.kernels.rounding.feedback import ColumnLevels, feedback
from bntools.tools.quantize.fixed import coded_grids, grids
from bntools.tools.quantize.settings import Grid

_LAZY = 128  # columns whose feedback is gathered before it reaches the rest of the matrix
DAMPING = 0.01
IN_FLIGHT = 2 << 30  # bytes of linears coded at once


class How(NamedTuple):
    """How GPTQ codes, besides the grid: `minmax` or `weighted` grids, rounds of polish, and damping to start with."""

    search: str = "minmax"
    rounds: int = 0
    damping: float = DAMPING


_PLAINLY = How()


class Coded(NamedTuple):
    """A coded matrix: its packed form, its dense values [out, in], and how the work went."""

    packed: Packed
    values: Tensor
    error: float
    damping: float
    dead: int


def gptq(
    w: Tensor, hessian: Tensor, grid: Grid, how: How = _PLAINLY, *, stored_transposed: bool = False
) -> Coded:
    """Codes of W [out, in] float32 by GPTQ (arXiv 2210.17323) with the order of falling diag(H).

    hessian: E[x x^T] of the inputs, [in, in]. Per OC the grids come from the
    weights as they were, weighted by diag(H), so that the order needs no index in the file (static groups). Per IC
    (AdaDim, arXiv 2309.15531) the groups of a column are taken from its compensated values as it is reached.
    Damping starts at `how.damping` of the mean diagonal and grows tenfold while the factorisation fails; inputs that
    are always 0 get weights of 0, as in GPTQ's code. error: tr(E H E^T) / tr(W H W^T). Grids with coded metadata are
    always searched, see `coded_grids`, and polished for `how.rounds` rounds.
    Raises BnError (exit 3) when W or H is not finite.
    """
    if not (torch.isfinite(w).all() and torch.isfinite(hessian).all()):
        raise bad_input(
            "weights or activations are NaN or infinite", "the checkpoint is damaged; --exclude it"
        )
    dead = hessian.diagonal() <= 0
    work = w.masked_fill(dead[None], 0.0)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    factor, damping = damped_factor(hessian, dead, order, how.damping)
    if grid.meta:
        inverse = coded_grids.Inverse(factor, order, damping)
        packed, values = coded_grids.by_feedback(work, hessian, inverse, grid, how.rounds)
        packed = packed._replace(transposed=stored_transposed)
        error = quadratic(values - w, hessian) / max(quadratic(w, hessian), 1e-300)
        return Coded(packed, values, error, damping, int(dead.sum()))
    if grid.dim == "ic":
        codes, scales, zeros, rows = _per_input(work.T[order], factor, grid, how.search)
        back = order.argsort()
        codes, scales, zeros, values = codes[back], scales[back], zeros[back], rows[back].T
    else:
        width = w.shape[1] if grid.group == -1 else min(grid.group, w.shape[1])
        scales, zeros = static_grids(work, width, grid, how.search, hessian.diagonal())
        levels = ColumnLevels(scales.float().T, zeros.T, order // width, grid.bits)
        codes, values = feedback(work.T[order], factor, levels, torch.get_num_threads())
        back = order.argsort()
        codes, values = codes[back].T, values[back].T
    error = quadratic(values - w, hessian) / max(quadratic(w, hessian), 1e-300)
    # Codes lie as the groups run: a row is an output per OC, an input per IC.
    packed = Packed(
        pack(codes.to(torch.uint8).contiguous(), grid.bits), grids.stored(scales.float()),
        None if grid.symmetric else pack(zeros.to(torch.uint8).contiguous(), grid.bits),
        grid.bits, grid.group, codes.shape[1], (grid.dim == "ic") != stored_transposed,
    )  # fmt: skip
    return Coded(packed, values, error, damping, int(dead.sum()))


def coding_bytes(weights: int, inputs: int) -> int:
    """Peak memory of GPTQ on one matrix: four like it and about six like its Hessian, in float32 (measured)."""
    return 4 * (4 * weights + 6 * inputs * inputs)


def static_grids(w: Tensor, width: int, grid: Grid, kind: str, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zeros of the groups of each row of w [out, in]."""
    if kind == "weighted":
        return grids.weighted(w, width, grid.bits, grid.symmetric, moments)
    return grids.minmax(*grids.limits(w, width), grid.bits, grid.symmetric)


def quadratic(e: Tensor, hessian: Tensor) -> float:
    """tr(E H E^T): the mean squared error of the layer's output, summed over outputs."""
    return float(((e @ hessian) * e).sum(dtype=torch.float64))


def damped_factor(
    hessian: Tensor, dead: Tensor, order: Tensor, damping: float = DAMPING
) -> tuple[Tensor, float]:
    """Upper U with H^-1 = U^T U of the damped Hessian in the given order, and the damping it took."""
    h = hessian[order][:, order]
    diagonal = h.diagonal().masked_fill(dead[order], 1.0)
    mean = float(hessian.diagonal().mean()) or 1.0
    while True:
        h.diagonal().copy_(diagonal + damping * mean)
        upper = cholesky.inverse_factor(h)
        if upper is not None:
            return upper, damping
        damping *= 10
        if damping > 1e6:
            raise bad_input(
                "no damping makes the inputs' second moments invertible", "--method rtn needs none"
            )


def _per_input(
    columns: Tensor, factor: Tensor, grid: Grid, kind: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [in, out], scales and zeros [in, groups], values [in, out]; grids from compensated columns [in, out]."""
    inputs, outs = columns.shape
    width = outs if grid.group == -1 else min(grid.group, outs)
    if kind == "minmax":
        return column_grids.feedback(
            columns, factor, width, grid.bits, grid.symmetric, torch.get_num_threads()
        )
    group_of = torch.arange(outs) // width
    alike = torch.ones(outs)
    scales, zeros = torch.empty(inputs, -(-outs // width)), torch.empty(inputs, -(-outs // width))

    def fit(column: Tensor, at: int) -> tuple[Tensor, Tensor]:
        column_scales, column_zeros = static_grids(column[None], width, grid, kind, alike)
        scales[at], zeros[at] = column_scales[0].float(), column_zeros[0]
        return scales[at][group_of], zeros[at][group_of]

    codes, rows = _feedback(columns, factor, grid.bits, fit)
    return codes, scales, zeros, rows


def _feedback(
    columns: Tensor, factor: Tensor, bits: int, grid_at: Callable[[Tensor, int], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Codes and values [in, out] of the columns of W, rounded one after the other (arXiv 2210.17323, algorithm 1).

    grid_at: scales and zeros [out] of a column, from its compensated values and its place in the order.
    """
    levels = 2**bits - 1
    rows = columns.clone(memory_format=torch.contiguous_format)
    codes = torch.empty_like(rows)
    for start in range(0, len(rows), _LAZY):
        stop = min(start + _LAZY, len(rows))
        block, errors = rows[start:stop], torch.empty(stop - start, rows.shape[1])
        pivots = factor.diagonal()[start:stop].tolist()
        for j, pivot in enumerate(pivots):
            column, at = block[j], start + j
            s, z = grid_at(column, at)
            torch.clamp((column / s).round_().add_(z), 0, levels, out=codes[at])
            value = (codes[at] - z).mul_(s)
            torch.sub(column, value, out=errors[j]).div_(pivot)
            block[j + 1 :].addr_(factor[at, at + 1 : stop], errors[j], alpha=-1)
            block[j] = value
        rows[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return codes, rows
