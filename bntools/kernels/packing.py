"""Dense bit packing: each row of codes is one little-endian bit stream."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """[rows, cols] uint8 codes in [0, 2^bits) to [rows, ceil(cols * bits / 8)] uint8."""
    shifts = torch.arange(bits, dtype=torch.uint8)
    stream = ((codes[..., None] >> shifts) & 1).flatten(-2)
    stream = torch.nn.functional.pad(stream, (0, -stream.shape[-1] % 8))
    weights = 1 << torch.arange(8)
    return (stream.unflatten(-1, (-1, 8)).long() * weights).sum(-1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, cols: int) -> Tensor:
    """The inverse of `pack`."""
    stream = ((packed[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten(-2)[..., : cols * bits]
    return (stream.unflatten(-1, (-1, bits)).long() << torch.arange(bits)).sum(-1).to(torch.uint8)
