"""Products of packed codes with float vectors by int8 matrix products on masked bytes, without unpacking.

A code is a sum of bit fields, each inside one byte, so a dot product with codes is a sum of dot products with
`bytes & mask`: one mask, or plane, for each field that a byte may hold. A plane is int8; the float vector is
written as three int8 digits (24 bits under its largest magnitude), so the products are exact integers and run
on the integer dot product units. For b bits that is about 1 (b = 4) or 1.5 (b = 3) bytes of work a code,
against 4 of a dense float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

SCRATCH = 1 << 22
"""Bytes of one masked block: large, since an integer product of few rows is mostly overhead."""
JOINED = 4
"""Groups of one integer product at most: joined groups are also multiplied with each other, in vain."""
LONGEST = 1 << 16
"""Terms of one integer product: int32 holds 2^17 products of two int8."""


class Fields(NamedTuple):
    """The bit fields of bytes: mask, the code it belongs to and its factor in it, all [planes, bytes].

    Plane 0 holds the field that ends at bit 7; where a byte holds fewer fields than there are planes the
    factor is 0.
    """

    masks: Tensor
    code: Tensor
    factor: Tensor


def fits(bits: int, width: int, groups: int, shape: torch.Size) -> bool:
    """Whether groups of `width` codes start on whole bytes and codes [rows, bytes] are not too long."""
    return (groups == 1 or width * bits % 8 == 0) and max(shape) <= LONGEST


@lru_cache
def available() -> bool:
    """Whether this CPU has fast int8 matrix products and they are exact.

    Where there are no dot product units (VNNI), pairs of products may be summed in an int16 that saturates.
    """
    if not hasattr(torch, "_int_mm") or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    column, row = torch.tensor([[-128], [127], [-1]]), torch.tensor([[-128, 127] * 32])
    found = torch._int_mm(column.expand(3, 96).to(torch.int8), row.expand(96, 64).to(torch.int8))
    return torch.equal(found, (96 * column * row).to(torch.int32))


def right(codes: Tensor, x: Tensor, bits: int) -> Tensor:
    """Products of each group of codes [rows, bytes] with that group's x [groups, width]: [groups, rows]."""
    groups, width = x.shape
    fields = _fields(bits, width)
    planes, nbytes = fields.masks.shape
    joined, chunks = _chunks(groups, nbytes)
    spread = pad(x, (0, 0, 0, joined * chunks - groups))[:, fields.code] * fields.factor
    digits, worths = _digits(torch.cat((spread[:, :1], spread[:, 1:] - spread[:, :1]), 1))
    matrix = torch.zeros(chunks, planes, joined, 3, joined, nbytes, dtype=torch.int8)
    matrix.diagonal(0, 2, 4).copy_(digits.unflatten(0, (chunks, joined)).permute(0, 2, 3, 4, 1))
    matrix = matrix.flatten(4).flatten(2, 3)
    weights = torch.zeros(chunks, joined, planes, joined, 3)
    weights.diagonal(0, 1, 3).copy_(worths.unflatten(0, (chunks, joined)).permute(0, 2, 3, 1))
    weights = weights.flatten(2)
    dots = torch.empty(chunks * joined, codes.shape[0])
    for rows, masked in _blocks(codes, fields.masks.repeat(1, groups)):
        sums = torch.empty(chunks, planes, 3 * joined, rows.stop - rows.start, dtype=torch.int32)
        for plane, block in enumerate(masked):
            for chunk, part in enumerate(block.split(joined * nbytes, 1)):
                torch._int_mm(matrix[chunk, plane, :, : part.shape[1]], part.T, out=sums[chunk, plane])
        dots[:, rows] = torch.bmm(weights, sums.float().flatten(1, 2)).flatten(0, 1)
    return dots[:groups] + 128 * spread[:groups, 0].sum(1, keepdim=True)


def left(codes: Tensor, a: Tensor, bits: int, width: int, cols: int) -> Tensor:
    """y [cols], y_j = sum_r a_gr code_rj with g the group of j: a [groups, rows], codes [rows, bytes]."""
    groups = len(a)
    fields = _fields(bits, width)
    planes, nbytes = fields.masks.shape
    joined, chunks = _chunks(groups, nbytes)
    digits, worths = _digits(pad(a, (0, 0, 0, joined * chunks - groups)))
    matrix = digits.view(chunks, 3 * joined, -1)
    total = torch.zeros(chunks, planes, 3 * joined, joined * nbytes, dtype=torch.int32)
    for rows, masked in _blocks(codes, fields.masks.repeat(1, groups)):
        for plane, block in enumerate(masked):
            for chunk, part in enumerate(block.split(joined * nbytes, 1)):
                total[chunk, plane, :, : part.shape[1]] += torch._int_mm(matrix[chunk, :, rows], part)
    own = total.view(chunks, planes, joined, 3, joined, nbytes).diagonal(0, 2, 4).permute(0, 4, 1, 2, 3)
    sums = (own.flatten(0, 1)[:groups] * worths[:groups, None, :, None]).sum(2)
    sums[:, 0] += 128 * a.sum(1, keepdim=True) - sums[:, 1:].sum(1)
    y = torch.zeros(groups, width).index_add_(1, fields.code.flatten(), (sums * fields.factor).flatten(1))
    return y.flatten()[:cols]


def _chunks(groups: int, nbytes: int) -> tuple[int, int]:
    """How many groups of `nbytes` to join in one integer product, and how many products that makes."""
    joined = max(1, min(JOINED, 128 // nbytes, groups))
    return joined, -(-groups // joined)


def _blocks(codes: Tensor, masks: Tensor) -> Iterator[tuple[slice, Iterator[Tensor]]]:
    """Blocks of rows and, for each, its planes [rows, bytes] int8, each overwritten by the next."""
    count, nbytes = codes.shape
    size = max(16, SCRATCH // nbytes)
    masks = masks[:, :nbytes]
    # Spare columns: rows a power of two apart share cache sets, and _int_mm misreads a single column.
    scratch = torch.empty(min(size, count), nbytes + 64, dtype=torch.int8)[:, :nbytes]
    for start in range(0, count, size):
        block = codes[start : start + size].view(torch.int8)
        yield slice(start, start + len(block)), _planes(block, masks, scratch[: len(block)])


def _planes(block: Tensor, masks: Tensor, out: Tensor) -> Iterator[Tensor]:
    yield torch.bitwise_xor(block, -128, out=out)
    for mask in masks[1:]:
        yield torch.bitwise_and(block, mask, out=out)


def _digits(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., n] as sum_d worth_d digit_d, off by 2^-24 of its largest: int8 [..., 3, n], worths [..., 3]."""
    unit = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / (127 << 16)
    low = (x / unit).round().to(torch.int32)
    middle = (low + 128) >> 8
    high = (middle + 128) >> 8
    digits = torch.stack((high, middle - (high << 8), low - (middle << 8)), -2).to(torch.int8)
    return digits, unit * unit.new_tensor([1 << 16, 1 << 8, 1])


@lru_cache(maxsize=64)
def _fields(bits: int, cols: int) -> Fields:
    """The fields of a run of `cols` codes that starts on a whole byte."""
    code = torch.arange(cols)
    byte, at = code * bits // 8, code * bits % 8
    over = at + bits > 8  # a code that runs into the next byte has its high part there, from bit 0 up
    ends = at + bits >= 8
    rank = -(-at // bits)  # fields before it in its byte
    plane = torch.where(ends, 0, rank + 1)
    plane, byte = torch.cat((plane, torch.ones_like(code[over]))), torch.cat((byte, byte[over] + 1))
    shape = (int(plane.max()) + 1, -(-cols * bits // 8))
    masks, owner, factor = (
        torch.zeros(shape, dtype=torch.int8),
        torch.zeros(shape, dtype=torch.int64),
        torch.zeros(shape),
    )
    low = (1 << bits) - 1
    masks[plane, byte] = (torch.cat((low << at, low >> (8 - at[over]))) & 127).to(torch.int8)
    owner[plane, byte] = torch.cat((code, code[over]))
    factor[plane, byte] = torch.cat((2.0**-at, 2.0 ** (8 - at[over])))
    return Fields(masks, owner, factor)
