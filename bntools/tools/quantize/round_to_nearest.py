"""Round-to-nearest codes of a matrix on min-max grids, one grid a group."""

from __future__ import annotations

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
    rows = w.T if flipped else w
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
    step = max(1, _BLOCK // cols)
    for start in range(0, count, step):
        block = slice(start, start + step)
        packed[block] = pack(_codes(rows[block], scales[block].float(), zeros[block], bits, width), bits)
    packed_zeros = None if symmetric else pack(zeros.to(torch.uint8), bits)
    return Packed(packed, scales, packed_zeros, bits, group, cols, flipped)


def _limits(rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each group: two [rows, groups] float32 tensors."""
    count, cols = rows.shape
    groups = -(-cols // width)
    low, high = torch.empty(count, groups), torch.empty(count, groups)
    whole = cols // width
    step = max(1, _BLOCK // cols)
    for start in range(0, count, step):
        block = slice(start, start + step)
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


def _codes(rows: Tensor, scales: Tensor, zeros: Tensor, bits: int, width: int) -> Tensor:
    """Codes [rows, cols] uint8 for given grids."""
    values = rows.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    count, cols = values.shape
    whole = cols // width
    parts = [(values[:, : whole * width].view(count, whole, width), slice(0, whole))] if whole else []
    if whole * width < cols:
        parts.append((values[:, whole * width :].unsqueeze(1), slice(whole, whole + 1)))
    for part, groups in parts:
        s, z = scales[:, groups, None], zeros[:, groups, None]
        part.div_(s).round_().add_(z).clamp_(0, 2**bits - 1)
    return values.to(torch.uint8)
