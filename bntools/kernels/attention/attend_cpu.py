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
def _scores(packed, widths, table, logits):  # pragma: no cover - compiled
    size = packed.shape[1]
    for t in range(packed.shape[0]):
        for g in range(logits.shape[0]):
            logits[g, t] = 0
        at = 0
        for c in range(len(widths)):
            b = np.int64(widths[c])
            if b == 0:
                continue
            place = at >> 3
            word = np.int64(packed[t, place])
            if place + 1 < size:
                word |= np.int64(packed[t, place + 1]) << 8
            code = (word >> (at & 7)) & ((1 << b) - 1)
            for g in range(logits.shape[0]):
                logits[g, t] += table[g, c, code]
            at += b


@_jit
def _mix(packed, widths, half, levels, chances, mixed):  # pragma: no cover - compiled
    size = packed.shape[1]
    first = 0
    for c in range(half):
        first += np.int64(widths[c])
    for t in range(packed.shape[0]):
        at = first
        for c in range(half):
            b = np.int64(widths[half + c])
            if b == 0:
                continue
            place = at >> 3
            word = np.int64(packed[t, place])
            if place + 1 < size:
                word |= np.int64(packed[t, place + 1]) << 8
            value = levels[half + c, (word >> (at & 7)) & ((1 << b) - 1)]
            for g in range(mixed.shape[0]):
                mixed[g, c] += chances[g, t] * value
            at += b
