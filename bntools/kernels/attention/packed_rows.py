"""Rows of codes of mixed widths, a token a row, packed to whole bytes: random access to any token."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
_jit: Any = numba.njit(cache=True, nogil=True)


def row_bytes(widths: Codes) -> int:
    """Bytes of a token."""
    return -(-int(widths.astype(np.int64).sum()) // 8)


def pack(codes: Codes, widths: Codes) -> Codes:
    """codes [n, rows], each below 2^widths[row], to bytes [n, row_bytes], the lowest bit first."""
    out = np.zeros((len(codes), row_bytes(widths)), np.uint8)
    _pack(codes, widths, out)
    return out


def unpack(packed: Codes, widths: Codes) -> Codes:
    """codes [n, rows] of packed rows; a coordinate of width 0 has code 0."""
    out = np.zeros((len(packed), len(widths)), np.uint8)
    _unpack(packed, widths, out)
    return out


@_jit
def _pack(codes, widths, out):  # pragma: no cover - compiled
    for t in range(codes.shape[0]):
        at = 0
        for c in range(codes.shape[1]):
            value = np.int64(codes[t, c]) << (at & 7)
            place = at >> 3
            if widths[c] > 0:
                out[t, place] |= np.uint8(value & 255)
                if value > 255:
                    out[t, place + 1] |= np.uint8(value >> 8)
            at += widths[c]


@_jit
def _unpack(packed, widths, out):  # pragma: no cover - compiled
    size = packed.shape[1]
    for t in range(packed.shape[0]):
        at = 0
        for c in range(len(widths)):
            b = np.int64(widths[c])
            if b == 0:
                continue
            place = at >> 3
            word = np.int64(packed[t, place])
            if place + 1 < size:
                word |= np.int64(packed[t, place + 1]) << 8
            out[t, c] = np.uint8((word >> (at & 7)) & ((1 << b) - 1))
            at += b
