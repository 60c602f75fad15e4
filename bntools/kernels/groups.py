"""Grouped codes and their dequantization."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bntools.kernels.packing import unpack


class Packed(NamedTuple):
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    group: int
    cols: int
    transposed: bool


def dequantize(p: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    width = p.cols if p.group == -1 else min(p.group, p.cols)
    groups = -(-p.cols // width)
    zeros = torch.full((p.codes.shape[0], groups), 2.0 ** (p.bits - 1)) if p.zeros is None else unpack(p.zeros, p.bits, groups).float()
    index = torch.arange(p.cols) // width
    values = (unpack(p.codes, p.bits, p.cols).float() - zeros[:, index]) * p.scales.float()[:, index]
    return (values.T if p.transposed else values).to(dtype)
