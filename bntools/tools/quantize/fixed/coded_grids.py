"""Grids whose scales and zeros are themselves a few bits: searched, coded by feedback or to the nearest, polished."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bntools.kernels.grouped import fixed_rate_trellis as trellis
from bntools.kernels.grouped.bits import pack
from bntools.kernels.grouped.coded_scales import Meta
from bntools.kernels.grouped.operations import Packed, dequantize
from bntools.kernels.rounding.feedback import ColumnLevels, descend, feedback, nearest
from bntools.kernels.rounding.grid_search import Fit, refit, search
from bntools.tools.quantize.settings import Grid


class Inverse(NamedTuple):
    """Upper U with H^-1 = U^T U of the damped H, its columns in `order`."""

    factor: Tensor
    order: Tensor
    damping: float


class Columns(NamedTuple):
    """W, its coded values and their codes, all [in, out]; the last two are changed in place."""

    weights: Tensor
    values: Tensor
    codes: Tensor


def by_feedback(
    w: Tensor, hessian: Tensor, inverse: Inverse, grid: Grid, rounds: int
) -> tuple[Packed, Tensor]:
    """W [out, in] by GPTQ on searched grids, then `rounds` rounds of refit and coordinate descent.

    The grids weigh a column's error by 1 / U_jj^2, what is left of it after the best compensation by the columns
    still to come. The polish works on H with the damping of the factor.
    """
    factor, order, damping = inverse
    importance = torch.zeros(len(order))
    importance[order] = factor.diagonal().square().reciprocal()
    importance[hessian.diagonal() <= 0] = 0
    width, meta, threads = _shape(w, grid)
    columns = w.T.contiguous()
    fit = search(columns, importance / importance.mean().clamp_min(1e-30), width, meta, threads)
    levels = _levels(fit, width, grid, meta, len(columns))
    ordered = ColumnLevels(levels.scales, levels.zeros, levels.group[order], grid.bits, grid.trellis)
    codes, values = feedback(columns[order], factor, ordered, threads)
    back = order.argsort()
    codes, values = codes[back].contiguous(), values[back].contiguous()
    if rounds:
        h = hessian.clone()
        h.diagonal().add_(damping * float(hessian.diagonal().mean()) or 1.0)
        polish(Columns(columns, values, codes), h, fit, grid, rounds)
    return _finish(codes, fit, grid)


def by_rounding(w: Tensor, importance: Tensor, grid: Grid) -> tuple[Packed, Tensor]:
    """W [out, in] to the nearest levels of grids searched with the importance [in] of each input."""
    width, meta, threads = _shape(w, grid)
    columns = w.T.contiguous()
    fit = search(columns, importance / importance.mean().clamp_min(1e-30), width, meta, threads)
    codes, _ = nearest(columns, _levels(fit, width, grid, meta, len(columns)), threads)
    return _finish(codes, fit, grid)


def polish(coded: Columns, hessian: Tensor, fit: Fit, grid: Grid, rounds: int) -> None:
    """Scales and zeros refitted to the codes, then the codes to them, in turn and in place; never to the worse.

    Both steps minimize tr(E H E^T), one with the codes held, one column by column with all else held (CDQuant, arXiv
    2406.17542, is the second alone).
    """
    columns, values, codes = coded
    width, meta, threads = _shape(columns.T, grid)
    gradient = hessian @ (values - columns)
    for _ in range(rounds):
        where = _levels_of(codes, grid)
        refit(values, gradient, hessian, where, width, meta, fit, threads)
        descend(values, gradient, hessian, codes, _levels(fit, width, grid, meta, len(columns)), threads)


def _shape(w: Tensor, grid: Grid) -> tuple[int, Meta, int]:
    width = w.shape[1] if grid.group == -1 else min(grid.group, w.shape[1])
    return width, Meta(grid.bits, grid.meta), torch.get_num_threads()


def _levels(fit: Fit, width: int, grid: Grid, meta: Meta, count: int) -> ColumnLevels:
    group = torch.arange(count) // width
    return ColumnLevels(meta.scales(fit.index), meta.zeros(fit.zeros), group, grid.bits, grid.trellis)


def _levels_of(codes: Tensor, grid: Grid) -> Tensor:
    """Where codes [in, out] lie, in float32."""
    if not grid.trellis:
        return codes.float()
    doubled = trellis.levels(codes.T.contiguous(), grid.trellis).T.contiguous()
    return doubled.float().mul_(0.5).sub_(0.25)


def _finish(codes: Tensor, fit: Fit, grid: Grid) -> tuple[Packed, Tensor]:
    """The packed matrix with its metadata expanded, and its values [out, in]."""
    meta = Meta(grid.bits, grid.meta)
    scales, zeros = meta.scales(fit.index).T.contiguous(), meta.zeros(fit.zeros).T.contiguous()
    packed = Packed(
        pack(codes.T.contiguous(), grid.bits), scales, zeros, grid.bits, grid.group, len(codes), False, grid.trellis
    )  # fmt: skip
    return packed, dequantize(packed)
