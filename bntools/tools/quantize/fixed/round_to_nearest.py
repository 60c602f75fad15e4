"""Round-to-nearest codes of a matrix, one grid a group."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.kernels.grouped.bits import pack
from bntools.kernels.grouped.operations import Packed
from bntools.tools.quantize.fixed import grids
from bntools.tools.quantize.settings import Grid


def round_to_nearest(w: Tensor, bits: int, group: int, symmetric: bool, flipped: bool = False) -> Packed:
    """Codes, scales and integer zeros of `w` by rounding to the nearest level of each group's min-max grid.

    w: [a, b] of any float type. Groups of `group` weights run along b, or along a if `flipped` (the transposed
    matrix is what is coded: per-IC is per-OC of the transpose); the last may be shorter; -1 is one group a row.
    q = clamp(round(w / s) + z, 0, 2^b - 1) with `grids.minmax` (AdaDim, arXiv 2309.15531, section 3).
    Deviations: the range always holds 0, as in GPTQ's code (a group of one sign would saturate z); s is rounded to
    its stored type before the codes are taken; a constant group gets s = |w|, exact where float16 is.
    Raises BnError (exit 3) when a weight is NaN or infinite.
    """
    return rounded(w, Grid(bits, group, symmetric=symmetric), flipped=flipped)[0]


def rounded(
    w: Tensor, grid: Grid, *, flipped: bool = False, search: str = "minmax", importance: Tensor | None = None
) -> tuple[Packed, float, float]:
    """`round_to_nearest` with the squared norms of what it loses and of `w`, taken block by block on the way.

    search: `minmax`, or `weighted` for `grids.weighted` with the importance [cols] of each column of what is coded.
    """
    bits, group, symmetric = grid.bits, grid.group, grid.symmetric
    rows = (w.T if flipped else w).contiguous()
    count, cols = rows.shape
    width = cols if group == -1 else min(group, cols)
    low, high = grids.limits(rows, width)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        broken = int((~torch.isfinite(w.float())).sum())
        raise bad_input(
            f"{broken} weights are NaN or infinite",
            "the checkpoint is damaged; --exclude keeps a tensor as it is",
        )
    if search == "minmax":
        scales, zeros = grids.minmax(low, high, bits, symmetric)
    else:
        scales, zeros = grids.weighted(rows, width, bits, symmetric, importance)
    packed = torch.empty(count, -(-cols * bits // 8), dtype=torch.uint8)
    lost = total = 0.0
    for block in grids.row_blocks(count, cols):
        values = rows[block].to(torch.float32, copy=True)
        codes = values.clone()
        _round(codes, scales[block].float(), zeros[block], bits, width)
        packed[block] = pack(codes.to(torch.uint8), bits)
        _restore(codes, scales[block].float(), zeros[block], width)
        lost += float(codes.sub_(values).square_().sum(dtype=torch.float64))
        total += float(values.square_().sum(dtype=torch.float64))
    packed_zeros = None if symmetric else pack(zeros.to(torch.uint8), bits)
    return Packed(packed, scales, packed_zeros, bits, group, cols, flipped), lost, total


def _round(values: Tensor, scales: Tensor, zeros: Tensor, bits: int, width: int) -> None:
    """Weights to codes, in place."""
    for part, groups in grids.parts(values, width):
        part.div_(scales[:, groups, None]).round_().add_(zeros[:, groups, None]).clamp_(0, 2**bits - 1)


def _restore(codes: Tensor, scales: Tensor, zeros: Tensor, width: int) -> None:
    """Codes to weights, in place."""
    for part, groups in grids.parts(codes, width):
        part.sub_(zeros[:, groups, None]).mul_(scales[:, groups, None])
