"""Scales and integer zeros of groups of weights: min-max, or searched for the smallest weighted error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bntools.kernels.rounding import weighted_grids

BLOCK = 1 << 18  # values worked on at a time: their float32 copies stay in the second-level cache
_SHRINKS = tuple(1 - 0.04 * step for step in range(16))  # 1 to 0.4 of the min-max range


def row_blocks(count: int, cols: int, block: int = BLOCK) -> list[slice]:
    """Slices of rows that hold about `block` values."""
    step = max(1, block // cols)
    return [slice(start, start + step) for start in range(0, count, step)]


def parts(values: Tensor, width: int) -> Iterator[tuple[Tensor, slice]]:
    """Views [rows, groups, width] of a block, whole groups first, with the columns of scales that belong to them."""
    count, cols = values.shape
    whole = cols // width
    if whole:
        yield values[:, : whole * width].view(count, whole, width), slice(0, whole)
    if whole * width < cols:
        yield values[:, whole * width :].unsqueeze(1), slice(whole, whole + 1)


def limits(rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each group: two [rows, groups] float32 tensors."""
    count, cols = rows.shape
    groups = -(-cols // width)
    low, high = torch.empty(count, groups), torch.empty(count, groups)
    for block in row_blocks(count, cols):
        for part, columns in parts(rows[block].float().contiguous(), width):
            low[block, columns], high[block, columns] = torch.aminmax(part, dim=-1)
    return low, high


def minmax(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scales, as they will be stored, and zeros of the grids that just hold [low, high] and 0.

    low, high: [...]. Asymmetric: s = (max - min) / (2^b - 1), z = round(-min / s) (AdaDim, arXiv 2309.15531,
    section 3). Symmetric: s = 2 max|w| / (2^b - 1), z = 2^(b-1). A constant group gets s = |w|.
    """
    levels = 2**bits - 1
    scales = (high.clamp(min=0) - low.clamp(max=0)) / levels
    if symmetric:
        scales = torch.maximum(-low, high) * (2 / levels)
    flat = torch.where(low == 0, torch.ones_like(low), low.abs())
    scales = stored(torch.where(low == high, flat, scales))
    return scales, zeros(low, scales.float(), bits, symmetric)


def zeros(low: Tensor, scales: Tensor, bits: int, symmetric: bool) -> Tensor:
    """Codes of the value 0, integers in float32."""
    if symmetric:
        return torch.full_like(scales, 2.0 ** (bits - 1))
    return (-low.clamp(max=0) / scales).round().clamp(0, 2**bits - 1)


def stored(scales: Tensor) -> Tensor:
    """Scales in the type they are stored in: float16, or float32 where that would overflow or lose digits."""
    half = scales.half()
    return half if bool(_fits_half(half, scales).all()) else scales.float()


def _fits_half(half: Tensor, scales: Tensor) -> Tensor:
    return (half.float() - scales).abs() <= scales * 2.0**-10


def weighted(
    rows: Tensor, width: int, bits: int, symmetric: bool, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scales and zeros with the smallest sum_j h_j (w_j - q_j)^2 found for each group: [rows, groups] each.

    rows: [rows, cols]. importance: h >= 0 [cols], usually E[x_j^2] of the inputs; None: all alike. Tried are 16
    ranges between 0.4 and 1 of min-max, each at three positions, then the best scale for the codes by least squares.
    Min-max is among them: no group is worse than with `minmax`.
    """
    low, high = limits(rows, width)
    scales, origins = (tensor.float() for tensor in minmax(low, high, bits, symmetric))
    h = torch.ones(rows.shape[1]) if importance is None else importance.float()
    for block in row_blocks(*rows.shape):
        values = rows[block].float().contiguous().numpy()
        lows, highs, s, z = (tensor[block].contiguous().numpy() for tensor in (low, high, scales, origins))
        weighted_grids.search(
            values,
            h.contiguous().numpy(),
            lows,
            highs,
            np.array(_SHRINKS, np.float32),
            width,
            bits,
            symmetric,
            s,
            z,
        )
        scales[block], origins[block] = torch.from_numpy(s), torch.from_numpy(z)
    return stored(scales), origins


def codes_of(rounded: Tensor, z: Tensor, levels: int) -> Tensor:
    """Codes minus their zero, clamped to the grid."""
    return torch.clamp(rounded, -z[..., None], levels - z[..., None])


def weighted_error(w: Tensor, h: Tensor, scales: Tensor, origins: Tensor, bits: int) -> Tensor:
    """sum_j h_j (w_j - q_j)^2 of each group of w [..., width]."""
    x = w / scales[..., None]
    return codes_of(x.round(), origins, 2**bits - 1).sub_(x).square_().mul_(h).sum(-1).mul_(scales.square())
