"""Locally adaptive vector quantization: each vector has a grid between its own least and greatest coordinate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Adaptive(NamedTuple):
    """codes [n, D] uint8 below 2^bits, and the grid of each vector as float16: low and step [n]."""

    codes: NDArray[np.uint8]
    low: NDArray[np.float16]
    step: NDArray[np.float16]


def encode(x: Floats, bits: int) -> Adaptive:
    """LVQ-B of x [n, D] (Aguerrebere and others, arXiv 2304.04759, section 3.1).

    step = (u - l) / (2^B - 1) rounded up to float16 and l rounded down, so that every coordinate is within half a
    step of its level; the paper rounds both to nearest.
    """
    low = x.min(1)
    low16 = low.astype(np.float16)
    low16 = np.where(low16.astype(np.float32) > low, np.nextafter(low16, np.float16(-np.inf)), low16)
    step = (x.max(1) - low16.astype(np.float32)) / (2**bits - 1)
    step16 = step.astype(np.float16)
    step16 = np.where(step16.astype(np.float32) < step, np.nextafter(step16, np.float16(np.inf)), step16)
    width = np.where(step16 > 0, step16, np.float16(1)).astype(np.float32)
    codes = np.rint((x - low16.astype(np.float32)[:, None]) / width[:, None])
    return Adaptive(np.clip(codes, 0, 2**bits - 1).astype(np.uint8), low16, step16)


def decode(code: Adaptive) -> Floats:
    """The vectors [n, D] that codes stand for."""
    return np.asarray(
        code.low.astype(np.float32)[:, None] + code.step.astype(np.float32)[:, None] * code.codes, np.float32
    )


def encode_residual(x: Floats, code: Adaptive) -> NDArray[np.uint8]:
    """Eight more bits of what a code leaves: levels of step / 256 over one step, middle at 127.5 (LVQ-BxB')."""
    width = np.where(code.step > 0, code.step, np.float16(1)).astype(np.float32)[:, None]
    return np.clip(np.floor((x - decode(code)) / width * 256 + 128), 0, 255).astype(np.uint8)


def decode_residual(code: Adaptive, residual: NDArray[np.uint8]) -> Floats:
    """The vectors [n, D] of both levels."""
    finer = (residual - np.float32(127.5)) / 256
    return np.asarray(decode(code) + code.step.astype(np.float32)[:, None] * finer, np.float32)


def pack_halves(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes below 16 [n, D], two a byte [n, ceil(D / 2)], the first in the low half."""
    even = codes if codes.shape[1] % 2 == 0 else np.pad(codes, ((0, 0), (0, 1)))
    return np.asarray(even[:, ::2] | (even[:, 1::2] << 4), np.uint8)


def unpack_halves(packed: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The inverse of `pack_halves`."""
    result = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    result[:, ::2], result[:, 1::2] = packed & 15, packed >> 4
    return result[:, :width]
