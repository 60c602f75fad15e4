"""Trellis codes of a fixed rate: one more bit of resolution than a code holds, from the codes just before it.

A column of codes is read downwards. The lowest bits u of its codes pass through two shift registers (a
convolutional code), which give the parity x of the level and a half step p:

    x_t = u_t + sum_i X_i u_(t-i)   p_t = sum_i P_i u_(t-i)   (mod 2, i = 1 .. memory)
    level_t = (code_t with x_t for its lowest bit) + p_t / 2 - 1/4

So every code has 2^b levels out of the 2^(b+1) of a grid twice as fine, and the encoder is free to choose the
path along which they fit best. This is trellis-coded quantization (Marcellin and Fischer, IEEE Trans. Commun.
38(1), 1990) with the one-dimensional codes of Ungerboeck (IEEE Trans. Inform. Theory 28(1), 1982) written with
the register of the path in place of the recursive encoder, so that a level depends on `memory` codes above it
and on nothing else: any row can be read alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POLYNOMIALS = {
    2: (0o2, 0o5),
    3: (0o4, 0o13),
    4: (0o4, 0o23),
    5: (0o10, 0o45),
    6: (0o24, 0o103),
    7: (0o126, 0o235),
    8: (0o362, 0o515),
}
"""(h1, h0) by memory, coefficient of D^i at bit i: Ungerboeck's codes with 2^memory states."""
SEGMENT = 256
"""Rows after which the registers start from zero, so that parts of a column can be coded side by side."""


class Taps(NamedTuple):
    """Which earlier bits are summed: bit i - 1 stands for the code i rows above."""

    parity: int
    half: int


def taps(memory: int) -> Taps:
    """Taps of the code with 2^memory states."""
    h1, h0 = POLYNOMIALS[memory]
    return Taps(h0 >> 1, h1 >> 1)


def branches(memory: int) -> NDArray[np.int64]:
    """2 x + p of the path bit 0 out of each state whose oldest bit is 0: [2^(memory - 1)]."""
    parity, half = taps(memory)
    states = range(1 << (memory - 1))
    return np.array([2 * ((s & parity).bit_count() & 1) + ((s & half).bit_count() & 1) for s in states])


def levels(codes: Tensor, memory: int) -> Tensor:
    """Twice the level plus 1/2, as integers: codes [rows, cols] uint8 to [rows, cols] int16.

    Level = half of the result minus 1/4. Registers run down the rows.
    """
    parity, half = taps(memory)
    low = codes & 1
    x, p = low.clone(), torch.zeros_like(low)
    for start in range(0, len(codes), SEGMENT):
        rows = slice(start, start + SEGMENT)
        for lag in range(1, memory + 1):
            earlier = low[rows][:-lag]
            if (parity >> (lag - 1)) & 1:
                x[rows][lag:] ^= earlier
            if (half >> (lag - 1)) & 1:
                p[rows][lag:] ^= earlier
    return ((codes ^ low ^ x).to(torch.int16) << 1).add_(p)
