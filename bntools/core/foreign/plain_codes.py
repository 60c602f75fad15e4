"""One linear weight as plain codes on a grid: the common form of all formats with groups along the inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.packing.grouped import GroupSpec
from bntools.kernels.grouped.bits import pack, unpack

PLAIN = {"codes": ("U8",), "scales": ("F16", "BF16", "F32"), "zeros": ("U8",)}
"""Stored types of a packing that is plain codes, scales and integer zeros, and nothing besides."""
_KNOWN = {"bits", "group", "dim", "symmetric", "shape", "dtype", "transposed"}


class PlainCodes(NamedTuple):
    """W [out, in] = (codes - zeros) * scales, one scale and one zero for each `width` inputs of a row.

    codes: [out, in] uint8 below 2^bits. scales: [out, groups] float. zeros: [out, groups] uint8, or None where
    every zero is 2^(bits - 1). The last group may be shorter.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    width: int

    def filled_zeros(self) -> Tensor:
        """Zeros [out, groups] uint8, spelled out."""
        if self.zeros is not None:
            return self.zeros
        return torch.full(self.scales.shape, 1 << (self.bits - 1), dtype=torch.uint8)

    def signed(self) -> Tensor:
        """codes - zeros, [out, in] int16."""
        wide = self.filled_zeros().to(torch.int16).repeat_interleave(self.width, 1)
        return self.codes.to(torch.int16) - wide[:, : self.codes.shape[1]]

    def dense(self) -> Tensor:
        """W [out, in] float32, each product rounded once."""
        wide = self.scales.float().repeat_interleave(self.width, 1)
        return self.signed().float() * wide[:, : self.codes.shape[1]]


def is_plain(spec: GroupSpec) -> bool:
    """Whether a spec says no more than the fields known here: any other that is set changes what the codes mean."""
    return not any(value for key, value in asdict(spec).items() if key not in _KNOWN)


def width_of(spec: GroupSpec) -> int:
    """Weights of a whole group."""
    return spec.cols if spec.group == -1 else min(spec.group, spec.cols)


def read(name: str, spec: GroupSpec, get: Callable[[str], Tensor]) -> PlainCodes:
    """A packed two-dimensional tensor of ours whose groups run along the inputs."""
    zeros = None if spec.symmetric else unpack(get(f"{name}.zeros"), spec.bits, spec.groups)
    codes = unpack(get(f"{name}.codes"), spec.bits, spec.cols)
    return PlainCodes(codes, get(f"{name}.scales"), zeros, spec.bits, width_of(spec))


def parts(coded: PlainCodes) -> dict[str, Tensor]:
    """The tensors of our own packing, without the name before them."""
    tensors = {"codes": pack(coded.codes.contiguous(), coded.bits), "scales": coded.scales.contiguous()}
    if coded.zeros is not None:
        tensors["zeros"] = pack(coded.zeros.contiguous(), coded.bits)
    return tensors
