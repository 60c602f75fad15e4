"""Scales and integer zeros of groups of weights: min-max, or searched for the smallest weighted error."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 18  # values worked on at a time: their float32 copies stay in the second-level cache
_SHRINKS = tuple(1 - 0.04 * step for step in range(16))  # 1 to 0.4 of the min-max range
_OFFSETS = (-1.0, 0.0, 1.0)  # of the zero, in steps, from a range clipped alike at both ends


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
    tried = len(_SHRINKS) * (1 if symmetric else len(_OFFSETS))
    for block in row_blocks(*rows.shape, BLOCK // tried):
        values = rows[block].float().contiguous()
        weights = parts(h[None], width)
        for (part, columns), (weight, _) in zip(parts(values, width), weights, strict=True):
            at = (block, columns)
            scales[at], origins[at] = _search(
                part, weight[0], low[at], high[at], scales[at], origins[at], bits, symmetric
            )
    return stored(scales), origins


def _search(
    w: Tensor,
    h: Tensor,
    low: Tensor,
    high: Tensor,
    scales: Tensor,
    origins: Tensor,
    bits: int,
    symmetric: bool,
) -> tuple[Tensor, Tensor]:
    """The best grid of each group of w [rows, groups, width], never worse than the one given."""
    levels = 2**bits - 1
    shrinks = torch.tensor(_SHRINKS).view(-1, 1, 1, 1)
    full = torch.maximum(-low, high) * (2 / levels) if symmetric else (high - low) / levels
    s = _half((shrinks * full).clamp(min=1e-30))  # [shrinks, 1, rows, groups]
    if symmetric:
        z = torch.full_like(s, 2.0 ** (bits - 1))
    else:
        middle = (levels - (low + high) / s) / 2
        z = (middle.round() + torch.tensor(_OFFSETS).view(1, -1, 1, 1)).clamp_(0, levels)
    x = w / s[..., None]
    errors = _codes(x.round(), z, levels).sub_(x).square_().mul_(h).sum(-1).mul_(s.square())
    index = errors.flatten(0, 1).argmin(0, keepdim=True)
    s = s.expand_as(errors).flatten(0, 1).gather(0, index)[0]
    z = z.expand_as(errors).flatten(0, 1).gather(0, index)[0]
    best = (scales, origins, weighted_error(w, h, scales, origins, bits))
    best = _better(best, w, h, s, z, bits)
    codes = _codes((w / best[0][..., None]).round_(), best[1], levels)
    size = (codes.square() * h).sum(-1)
    fitted = (codes * w).mul_(h).sum(-1) / size
    fitted = torch.where((size > 0) & (fitted > 0), fitted, best[0])
    best = _better(best, w, h, _half(fitted), best[1], bits)
    return best[0], best[1]


def _half(scales: Tensor) -> Tensor:
    """Scales rounded to float16 where that keeps their digits."""
    half = scales.half()
    return torch.where(_fits_half(half, scales), half.float(), scales)


def _codes(rounded: Tensor, z: Tensor, levels: int) -> Tensor:
    """Codes minus their zero, clamped to the grid."""
    return torch.clamp(rounded, -z[..., None], levels - z[..., None])


def weighted_error(w: Tensor, h: Tensor, scales: Tensor, origins: Tensor, bits: int) -> Tensor:
    """sum_j h_j (w_j - q_j)^2 of each group of w [..., width]."""
    x = w / scales[..., None]
    return _codes(x.round(), origins, 2**bits - 1).sub_(x).square_().mul_(h).sum(-1).mul_(scales.square())


def _better(
    best: tuple[Tensor, Tensor, Tensor], w: Tensor, h: Tensor, s: Tensor, z: Tensor, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    error = weighted_error(w, h, s, z, bits)
    wins = error < best[2]
    return torch.where(wins, s, best[0]), torch.where(wins, z, best[1]), torch.where(wins, error, best[2])
