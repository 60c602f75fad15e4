"""Codes in the blocks of 32 that GGUF stores: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.core.foreign.plain_codes import PlainCodes
from bntools.tools.export.plan import Grid

BLOCK = 32
BYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34}
"""Bytes of a block: a float16 scale, for _1 a float16 minimum, and the codes."""

Bytes = NDArray[np.uint8]


def kind_of(grid: Grid) -> str:
    """The smallest block type that holds every code of a grid; empty where none does.

    Q4_0, Q5_0 and Q8_0 hold signed codes, -8..7, -16..15 and -128..127, and a zero moves into them where it fits.
    Q4_1 and Q5_1 hold codes and an offset, -zero * scale, which is rounded to float16.
    """
    if grid.symmetric:
        return "Q4_0" if grid.bits <= 4 else "Q5_0" if grid.bits == 5 else "Q8_0"
    return {2: "Q4_0", 3: "Q4_0", 4: "Q4_1", 5: "Q5_1", 6: "Q8_0", 7: "Q8_0"}.get(grid.bits, "")


def encode(coded: PlainCodes, kind: str) -> Bytes:
    """Rows of blocks [out, in / 32 * bytes]; in and the group's width are multiples of 32, scales fit float16.

    Codes j and j + 16 of a block share a byte; the fifth bits of Q5 stand before them, one bit a code.
    """
    out, inputs = coded.codes.shape
    repeat = coded.width // BLOCK
    scales = coded.scales.numpy().astype(np.float16).repeat(repeat, 1)[:, : inputs // BLOCK]
    head = [scales.reshape(-1, 1).view(np.uint8)]
    if kind.endswith("_1"):
        zeros = coded.filled_zeros().numpy().repeat(repeat, 1)[:, : inputs // BLOCK]
        offsets = -(zeros.astype(np.float32) * scales.astype(np.float32))
        head.append(offsets.astype(np.float16).reshape(-1, 1).view(np.uint8))
        codes = coded.codes.numpy().reshape(-1, BLOCK)
    else:
        shift = {"Q4_0": 8, "Q5_0": 16, "Q8_0": 0}[kind]
        codes = (coded.signed().numpy() + shift).astype(np.uint8).reshape(-1, BLOCK)
    if kind.startswith("Q5"):
        head.append(np.packbits(codes >> 4, axis=1, bitorder="little"))
    low = codes & 15
    body = codes if kind == "Q8_0" else low[:, :16] | (low[:, 16:] << 4)
    return np.concatenate([*head, body], 1).reshape(out, -1)
