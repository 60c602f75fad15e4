"""Attention over packed rows without unpacking them: look-ups in place of products, a pass for scores, one for values.

A query turned into the coordinates of the codes gives one table a coordinate, so a logit is a sum of look-ups; what
has no bits costs nothing. Values are summed as weights by code and turned back once.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
TILE = 256
"""Tokens of which one coordinate's codes are held at a time."""
_jit: Any = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")


def attend(query: Floats, packed: Codes, widths: Codes, levels: Floats, mean: Floats) -> Floats:
    """Outputs [groups, d], in the coordinates of the values, of queries [groups, d] in those of the keys.

    packed [n, row bytes]: keys' codes and values' codes of a token in one row; widths [2 d]; levels [2 d, 2^b]: value
    of each code of a coordinate. mean [groups]: what every logit has besides, which no softmax sees: kept for a
    softmax that spans other tokens too. Use `parts` for that.
    """
    _, total, mixed = parts(query, packed, widths, levels, mean)
    return mixed / total[:, None]


def parts(
    query: Floats, packed: Codes, widths: Codes, levels: Floats, mean: Floats
) -> tuple[Floats, Floats, Floats]:
    """Largest logit [groups], sum of exp(logit - largest), and the sum of values so weighted [groups, d]."""
    half = len(widths) // 2
    groups = len(query)
    logits = np.empty((groups, len(packed)), np.float32)
    table = (query[:, :, None] * levels[None, :half]).astype(np.float32)
    _scores(packed, widths[:half], table, logits)
    logits += mean[:, None]
    top = logits.max(1)
    chances = np.exp(logits - top[:, None])
    mixed = np.zeros((groups, half), np.float32)
    _mix(packed, widths, half, levels, chances, mixed)
    return top, chances.sum(1), mixed


@_jit
def _codes(packed, start, at, bits, out):  # pragma: no cover - compiled
    """Codes of one coordinate, `bits` wide from bit `at` on, of the tokens from `start` on."""
    place, shift, mask = at >> 3, at & 7, (1 << bits) - 1
    if shift + bits > 8:
        for i in range(len(out)):
            word = np.int64(packed[start + i, place]) | np.int64(packed[start + i, place + 1]) << 8
            out[i] = (word >> shift) & mask
    else:
        for i in range(len(out)):
            out[i] = (np.int64(packed[start + i, place]) >> shift) & mask


@_jit
def _scores(packed, widths, table, logits):  # pragma: no cover - compiled
    held = np.empty(TILE, np.uint8)
    logits[:] = 0
    for start in range(0, packed.shape[0], TILE):
        codes = held[: min(TILE, packed.shape[0] - start)]
        at = 0
        for c in range(len(widths)):
            bits = np.int64(widths[c])
            if bits == 0:
                continue
            _codes(packed, start, at, bits, codes)
            for g in range(logits.shape[0]):
                row, out = table[g, c], logits[g, start : start + len(codes)]
                for i in range(len(codes)):
                    out[i] += row[codes[i]]
            at += bits


@_jit
def _mix(packed, widths, half, levels, chances, mixed):  # pragma: no cover - compiled
    held = np.empty(TILE, np.uint8)
    first = 0
    for c in range(half):
        first += np.int64(widths[c])
    for start in range(0, packed.shape[0], TILE):
        codes = held[: min(TILE, packed.shape[0] - start)]
        at = first
        for c in range(half):
            bits = np.int64(widths[half + c])
            if bits == 0:
                continue
            _codes(packed, start, at, bits, codes)
            row = levels[half + c]
            for g in range(mixed.shape[0]):
                share, total = chances[g, start : start + len(codes)], np.float32(0)
                for i in range(len(codes)):
                    total += share[i] * row[codes[i]]
                mixed[g, c] += total
            at += bits
