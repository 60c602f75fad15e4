"""The trellis code of a stack's first planes: a bit a weight, a weight's neighbours having a say in what it stands for.

Trellis-coded quantization (Marcellin and Fischer, IEEE Trans. Commun. 38, 1990) with Ungerboeck's code of 4 states. A
plain plane moves a weight by -1/4 or 1/4 of its cell. Here it is moved by one of four steps, -3/8, -1/8, 1/8 or 3/8;
the bits u of a column, down the rows, are put through a shift register, and of row k

    high = u_k xor u_(k-2)    low = u_(k-1)    move = (high - 1/2) / 2 + (low - 1/2) / 4

so that for every state there are two moves half a cell apart, and the bit that chooses between them also decides
which two the next rows have. Decoded, such a plane is two lines of bits, of a half and of a quarter of the cell, each
weight for itself; the first row of a band has u = 0 before it.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

STATES = 4
Count = TypeVar("Count", int, NDArray[np.uint8])


def lines(planes: Count, trellis: int) -> Count:
    """Lines of bits that so many planes are, of which the first `trellis` have two."""
    if isinstance(planes, int):
        return planes + min(planes, trellis)
    return planes + np.minimum(planes, np.uint8(trellis))


def decode(bits: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The high and the low line [rows, width] of a plane's rows [rows, width], the first ones of a band."""
    high, low = bits.copy(), np.zeros_like(bits)
    high[2:] ^= bits[:-2]
    low[1:] = bits[:-1]
    return high, low


def step(state: int, bit: int) -> tuple[int, int]:
    """The state after a bit, and its move: 0 to 3, the lowest first. A state is the last two bits, the newer lower."""
    return 2 * (state & 1) + bit, 2 * (bit ^ state >> 1) + (state & 1)
