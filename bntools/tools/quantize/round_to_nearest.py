"""Round-to-nearest codes of a matrix on min-max grids, one grid a group."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.kernels.groups import Packed
from bntools.kernels.packing import pack

_BLOCK = 1 << 18  # weights of a block of rows: its float32 copies stay in the second-level cache


def round_to_nearest(w: Tensor, bits: int, group: int, symmetric: bool, flipped: bool = False) -> Packed:
    """Codes, scales and integer zeros of `w` by rounding to the nearest level of each group's min-max grid.

    w: [a, b] of any float type. Groups of `group` weights run along b, or along a if `flipped` (the transposed
    matrix is what is coded: per-IC is per-OC of the transpose); the last may be shorter; -1 is one group a row.
    Asymmetric: s = (max - min) / (2^b - 1), z = round(-min / s), q = clamp(round(w / s) + z, 0, 2^b - 1)
    (AdaDim, arXiv 2309.15531, section 3). Symmetric: s = 2 max|w| / (2^b - 1), z = 2^(b-1).
    Deviations: the range always holds 0, as in GPTQ's code (a group of one sign would saturate z); s is rounded to
    its stored type before the codes are taken; a constant group gets s = |w|, exact where float16 is.
    Raises BnError (exit 3) when a weight is NaN or infinite.
    """
    return rounded(w, bits, group, symmetric, flipped)[0]


def rounded(
    w: Tensor, bits: int, group: int, symmetric: bool, flipped: bool = False
) -> tuple[Packed, float, float]:
    """`round_to_nearest` with the squared norms of what it loses and of `w`, taken block by block on the way."""
    rows = (w.T if flipped else w).contiguous()
    count, cols = rows.shape
    width = cols if group == -1 else min(group, cols)
    low, high = _limits(rows, width)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        broken = int((~torch.isfinite(w.float())).sum())
        raise bad_input(
            f"{broken} weights are NaN or infinite",
            "the checkpoint is damaged; --exclude keeps a tensor as it is",
        )
    scales = stored_scales(_scales(low, high, bits, symmetric))
    zeros = _zeros(low, scales.float(), bits, symmetric)
    packed = torch.empty(count, -(-cols * bits // 8), dtype=torch.uint8)
    lost = total = 0.0
    for block in _row_blocks(count, cols):
        values = rows[block].to(torch.float32, copy=True)
        codes = values.clone()
        _round(codes, scales[block].float(), zeros[block], bits, width)
        packed[block] = pack(codes.to(torch.uint8), bits)
        _restore(codes, scales[block].float(), zeros[block], width)
        lost += float(codes.sub_(values).square_().sum(dtype=torch.float64))
        total += float(values.square_().sum(dtype=torch.float64))
    packed_zeros = None if symmetric else pack(zeros.to(torch.uint8), bits)
    return Packed(packed, scales, packed_zeros, bits, group, cols, flipped), lost, total


def _row_blocks(count: int, cols: int) -> list[slice]:
    """Slices of rows that hold about `_BLOCK` weights."""
    step = max(1, _BLOCK // cols)
    return [slice(start, start + step) for start in range(0, count, step)]


def _limits(rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each group: two [rows, groups] float32 tensors."""
    count, cols = rows.shape
    groups = -(-cols // width)
    low, high = torch.empty(count, groups), torch.empty(count, groups)
    whole = cols // width
    for block in _row_blocks(count, cols):
        values = rows[block].float()
        if whole:
            groups_of = values[:, : whole * width].reshape(-1, whole, width)
            low[block, :whole], high[block, :whole] = torch.aminmax(groups_of, dim=-1)
        if whole < groups:
            low[block, whole], high[block, whole] = torch.aminmax(values[:, whole * width :], dim=-1)
    return low, high


def _scales(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> Tensor:
    levels = 2**bits - 1
    full = (high.clamp(min=0) - low.clamp(max=0)) / levels
    scales = torch.maximum(-low, high) * (2 / levels) if symmetric else full
    constant = low == high
    return torch.where(constant, torch.where(low == 0, torch.ones_like(low), low.abs()), scales)


def stored_scales(scales: Tensor) -> Tensor:
    """Scales in the type they are stored in: float16, or float32 where that would overflow or lose digits."""
    half = scales.half()
    exact = (half.float() - scales).abs() <= scales * 2.0**-10
    return half if bool(exact.all()) else scales.float()


def _zeros(low: Tensor, scales: Tensor, bits: int, symmetric: bool) -> Tensor:
    if symmetric:
        return torch.full_like(scales, 2.0 ** (bits - 1))
    return (-low.clamp(max=0) / scales).round().clamp(0, 2**bits - 1)


def _groups(values: Tensor, width: int) -> Iterator[tuple[Tensor, slice]]:
    """Views [rows, groups, width] of a block, whole groups first, with the columns of scales that belong to them."""
    count, cols = values.shape
    whole = cols // width
    if whole:
        yield values[:, : whole * width].view(count, whole, width), slice(0, whole)
    if whole * width < cols:
        yield values[:, whole * width :].unsqueeze(1), slice(whole, whole + 1)


def _round(values: Tensor, scales: Tensor, zeros: Tensor, bits: int, width: int) -> None:
    """Weights to codes, in place."""
    for part, groups in _groups(values, width):
        part.div_(scales[:, groups, None]).round_().add_(zeros[:, groups, None]).clamp_(0, 2**bits - 1)


def _restore(codes: Tensor, scales: Tensor, zeros: Tensor, width: int) -> None:
    """Codes to weights, in place."""
    for part, groups in _groups(codes, width):
        part.sub_(zeros[:, groups, None]).mul_(scales[:, groups, None])
