"""Dense bit packing: each row of codes is a little-endian bit stream, padded with zeros to a whole byte."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

Words = NDArray[np.uint64]

BLOCK = 1 << 15
"""Words (8 codes each) worked on at a time: 256 KiB, so that a block and its scratch stay in a core's L2."""


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes [..., cols] uint8 in [0, 2^bits) to [..., ceil(cols * bits / 8)] uint8; bits 1 to 8.

    Code j holds bits j * bits to (j + 1) * bits - 1 of its row, lowest bit first. Raises ValueError on bits
    out of 1..8, a dtype other than uint8, or a code that does not fit. CPU tensors take the fast way, others
    `pack_reference`.
    """
    _check_bits(bits)
    _check_codes(codes, bits)
    if bits == 8 or codes.numel() == 0 or codes.device.type != "cpu":
        return codes.clone() if bits == 8 else pack_reference(codes, bits)
    cols = codes.shape[-1]
    eights = pad(codes, (0, -cols % 8)).contiguous().numpy().reshape(-1).view("<u8")
    rows = torch.from_numpy(_squeeze(eights, bits)).reshape(*codes.shape[:-1], -1)
    return rows[..., : _bytes(cols, bits)].contiguous()


def unpack(packed: Tensor, bits: int, cols: int) -> Tensor:
    """Unpack [..., ceil(cols * bits / 8)] uint8 to the codes [..., cols] uint8 that `pack` was given.

    Padding bits are not looked at. Raises ValueError on bits out of 1..8, a dtype other than uint8, or a last
    dimension that does not hold `cols` codes. CPU tensors take the fast way, others `unpack_reference`.
    """
    _check_bits(bits)
    _check_packed(packed, bits, cols)
    if bits == 8 or packed.numel() == 0 or packed.device.type != "cpu":
        return packed.clone() if bits == 8 else unpack_reference(packed, bits, cols)
    wide = cols + -cols % 8
    stream = pad(packed, (0, _bytes(wide, bits) - packed.shape[-1])).reshape(-1)
    codes = torch.from_numpy(_spread(pad(stream, (0, 8)).numpy(), bits).view(np.uint8))
    return codes.reshape(*packed.shape[:-1], wide)[..., :cols].contiguous()


def pack_reference(codes: Tensor, bits: int) -> Tensor:
    """The specification of `pack`: every code to its bits, every eight bits to a byte."""
    stream = ((codes[..., None] >> torch.arange(bits, dtype=torch.uint8, device=codes.device)) & 1).flatten(
        -2
    )
    octets = pad(stream, (0, -stream.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (octets << torch.arange(8, dtype=torch.uint8, device=codes.device)).sum(-1).to(torch.uint8)


def unpack_reference(packed: Tensor, bits: int, cols: int) -> Tensor:
    """The specification of `unpack`: every byte to its bits, every `bits` bits to a code."""
    stream = ((packed[..., None] >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1).flatten(-2)
    fields = stream[..., : cols * bits].unflatten(-1, (cols, bits))
    return (fields << torch.arange(bits, dtype=torch.uint8, device=packed.device)).sum(-1).to(torch.uint8)


def _squeeze(eights: Words, bits: int) -> NDArray[np.uint8]:
    """Words of 8 codes [n] to the stream [n * bits]: runs of 1, 2, 4 codes close up; `bits` bytes stay."""
    out = np.empty((eights.size, bits), np.uint8)
    x, t = np.empty((2, min(BLOCK, eights.size)), np.uint64)
    for start in range(0, eights.size, BLOCK):
        block = eights[start : start + BLOCK]
        x, t = x[: block.size], t[: block.size]
        for run in (1, 2, 4):
            first, second, gap = _lanes(run, bits)
            np.bitwise_and(block, second << gap, out=t)
            np.bitwise_and(block, first, out=x)
            np.right_shift(t, gap, out=t)
            block = np.bitwise_or(x, t, out=x)
        octets = x.view(np.uint8).reshape(-1, 8)
        for i in range(bits):
            out[start : start + len(octets), i] = octets[:, i]
    return out.reshape(-1)


def _spread(stream: NDArray[np.uint8], bits: int) -> Words:
    """The inverse: bit stream [n * bits + 8], the last 8 bytes unused, to words of 8 codes [n]."""
    count = (stream.size - 8) // bits
    eights = np.ndarray(
        count, "<u8", stream.data, strides=(bits,)
    )  # overlapping reads; the masks drop the excess
    out, t = np.empty(count, np.uint64), np.empty(min(BLOCK, count), np.uint64)
    for start in range(0, count, BLOCK):
        x = out[start : start + BLOCK]
        t = t[: x.size]
        x[:] = eights[start : start + BLOCK]
        for run in (4, 2, 1):
            first, second, gap = _lanes(run, bits)
            np.bitwise_and(x, second, out=t)
            np.bitwise_and(x, first, out=x)
            np.left_shift(t, gap, out=t)
            np.bitwise_or(x, t, out=x)
    return out


def _lanes(run: int, bits: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Masks of the first and second `run` codes at the foot of each 2 * run bytes, and the gap to open."""
    width = run * bits
    first = sum(((1 << width) - 1) << at for at in range(0, 64, 16 * run))
    return np.uint64(first), np.uint64(first << width), np.uint64(run * (8 - bits))


def _bytes(cols: int, bits: int) -> int:
    return -(-cols * bits // 8)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1 to 8, got {bits}")


def _check_codes(codes: Tensor, bits: int) -> None:
    if codes.dtype != torch.uint8 or codes.ndim == 0:
        raise ValueError(f"codes must be [..., cols] uint8, got {list(codes.shape)} {codes.dtype}")
    if codes.numel() and (top := int(codes.max())) >= 1 << bits:
        raise ValueError(f"code {top} does not fit in {bits} bits")


def _check_packed(packed: Tensor, bits: int, cols: int) -> None:
    if packed.dtype != torch.uint8 or packed.ndim == 0:
        raise ValueError(f"packed codes must be [..., bytes] uint8, got {list(packed.shape)} {packed.dtype}")
    if cols < 0 or packed.shape[-1] != _bytes(cols, bits):
        need = f"{cols} codes of {bits} bits take {_bytes(cols, bits)} bytes a row"
        raise ValueError(f"{need}, got {packed.shape[-1]}")
