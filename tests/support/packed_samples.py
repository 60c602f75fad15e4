"""Random packed weights for the tests of the kernels."""

from __future__ import annotations

import torch

from bntools.kernels.grouped.bits import pack
from bntools.kernels.grouped.operations import Packed


def random_packed(
    rows: int,
    cols: int,
    bits: int,
    group: int,
    symmetric: bool = False,
    transposed: bool = False,
    seed: int = 0,
    scales: torch.dtype = torch.float16,
) -> Packed:
    random = torch.Generator().manual_seed(seed)

    def codes(columns: int) -> torch.Tensor:
        return pack(torch.randint(0, 1 << bits, (rows, columns), generator=random, dtype=torch.uint8), bits)

    groups = 1 if group == -1 else -(-cols // min(group, cols))
    scale = (torch.rand(rows, groups, generator=random) + 0.1).to(scales)
    return Packed(codes(cols), scale, None if symmetric else codes(groups), bits, group, cols, transposed)
