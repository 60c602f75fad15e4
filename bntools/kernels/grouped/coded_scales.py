"""Scales and zeros of groups in a few bits each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bntools.kernels.grouped.bits import pack, unpack

STEPS = {2: 3, 3: 6, 4: 8}
"""Scale codes an octave, by their bits: the codes of a row reach over one to two octaves."""
FLOOR = -24
"""Base 2 logarithm of the smallest scale: float16 weights have no smaller steps."""


@dataclass(frozen=True)
class Meta:
    """Meaning of the codes that stand for a group's scale and zero.

    scale = 2^((row + code) / steps - 24), row a byte a row of W; zero = middle + (code - 2^(meta - 1)) step, in
    levels. bits: of a code of W. meta: of a scale's or a zero's code.
    """

    bits: int
    meta: int

    @property
    def count(self) -> int:
        return 1 << self.meta

    @property
    def steps(self) -> int:
        return STEPS[self.meta]

    @property
    def step(self) -> float:
        """The finer the more bits, so that zeros reach as far from the middle whatever their number of bits."""
        return self.bits / self.count

    @property
    def middle(self) -> float:
        return (2**self.bits - 1) / 2

    @property
    def lowest(self) -> int:
        """Logarithm of the smallest scale, in steps."""
        return FLOOR * self.steps

    @property
    def highest(self) -> int:
        """Logarithm of the largest scale that a row may start from, in steps."""
        return self.lowest + 255

    def scales(self, index: Tensor) -> Tensor:
        """float32 scales from their logarithms in steps, integers; computed in float64."""
        return torch.exp2(index.double() / self.steps).float()

    def zeros(self, codes: Tensor) -> Tensor:
        """float32 zeros of codes; exact."""
        return (codes.float() - self.count // 2) * self.step + self.middle

    def encode(self, scales: Tensor, zeros: Tensor) -> dict[str, Tensor]:
        """Bytes `rows` [rows], packed codes `scales` and `zeros`, of expanded ones [rows, groups].

        Raises ValueError when these are not what `decode` gives.
        """
        index = scales.double().log2().mul(self.steps).round().int()
        first = index.amin(1)
        offsets = ((zeros - self.middle) / self.step).round() + self.count // 2
        if int((index - first[:, None]).max()) >= self.count or int(first.max()) > self.highest:
            raise ValueError("the scales of a row do not fit its codes")
        rows = (first - self.lowest).to(torch.uint8)
        coded = (index - first[:, None]).to(torch.uint8), offsets.to(torch.uint8)
        return {"rows": rows, "scales": pack(coded[0], self.meta), "zeros": pack(coded[1], self.meta)}

    def decode(self, rows: Tensor, scales: Tensor, zeros: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Expanded scales and zeros [rows, groups] float32."""
        index = rows.int()[:, None] + unpack(scales, self.meta, groups).int() + self.lowest
        return self.scales(index), self.zeros(unpack(zeros, self.meta, groups))
