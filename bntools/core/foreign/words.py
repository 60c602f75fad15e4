"""Codes in 32-bit words, the storage of GPTQ and compressed-tensors files."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from bntools.core.errors import bad_input
from bntools.kernels.grouped.bits import pack, unpack


def to_words(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, n] uint8 in a dense stream a row, lowest bit first: [rows, ceil(n * bits / 32)] int32.

    32 codes are exactly `bits` words; a code may straddle two. The last word is padded with zeros.
    """
    packed = pack(codes, bits)
    stream = pad(packed, (0, -packed.shape[-1] % 4)).flatten()  # flat, for a view of one row or column
    return stream.view(torch.int32).view(len(codes), -1)


def from_words(words: Tensor, bits: int, count: int, what: str) -> Tensor:
    """Codes [rows, count] uint8 of int32 words [rows, n], dense or spaced, as the number of words tells.

    Spaced words hold floor(32 / bits) codes each and leave the top bits free: compressed-tensors wrote 3-bit codes
    so before its dense packing, under the same names and types. Raises BnError (exit 3) when n is neither.
    """
    each = 32 // bits
    dense, spaced = -(-count * bits // 32), -(-count // each)
    if words.shape[-1] == dense:
        stream = words.flatten().view(torch.uint8).view(len(words), -1)
        return unpack(stream[..., : -(-count * bits // 8)].contiguous(), bits, count)
    if words.shape[-1] != spaced:
        raise bad_input(
            f"{what} has {words.shape[-1]} words a row; {count} codes of {bits} bits take {dense}, or {spaced} spaced"
        )
    shifts = torch.arange(each, dtype=torch.int32) * bits
    fields = (words[..., None] >> shifts) & ((1 << bits) - 1)
    return fields.flatten(-2)[..., :count].to(torch.uint8)
