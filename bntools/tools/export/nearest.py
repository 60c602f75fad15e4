"""Rounding a dense weight to the nearest levels of a format's own grid."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.foreign.plain_codes import PlainCodes

_SMALLEST = 2.0**-24  # of float16


def nearest(w: Tensor, bits: int, width: int, symmetric: bool, lowest_zero: int = 0) -> PlainCodes:
    """Codes of w [out, in] on the min-max grid of each `width` inputs, scales rounded to float16 first.

    q = clamp(round(w / s) + z, 0, 2^b - 1). Asymmetric: the range holds 0 and s = (max - min) / (2^b - 1), z at
    least `lowest_zero`; symmetric: z = 2^(b-1) and s the smaller of max / (2^(b-1) - 1) and |min| / 2^(b-1) that
    still covers both ends.
    """
    levels, half = 2**bits - 1, 2 ** (bits - 1)
    inputs = w.shape[1]
    groups = -(-inputs // width)
    padded = torch.nn.functional.pad(w.float(), (0, groups * width - inputs)).unflatten(1, (groups, width))
    low, high = padded.amin(-1).clamp(max=0), padded.amax(-1).clamp(min=0)
    span = torch.maximum(high / max(half - 1, 1), -low / half) if symmetric else (high - low) / levels
    scales = span.half().clamp(min=_SMALLEST)
    s = scales.float()
    zeros = torch.full_like(s, half) if symmetric else (-low / s).round().clamp(lowest_zero, levels)
    codes = (padded / s[..., None]).round_().add_(zeros[..., None]).clamp_(0, levels).to(torch.uint8)
    plain = codes.flatten(1)[:, :inputs].contiguous()
    return PlainCodes(plain, scales, None if symmetric else zeros.to(torch.uint8), bits, width)
