"""The GPTQ checkpoint format, both ways: qweight, qzeros, scales and g_idx of one linear weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.foreign.plain_codes import PlainCodes
from bntools.core.foreign.words import from_words, to_words

PARTS = ("qweight", "qzeros", "scales", "g_idx")
BITS = (2, 3, 4, 8)


def encode(coded: PlainCodes, first: bool) -> dict[str, Tensor]:
    """Tensors of one module. first: format 1, which stores zero - 1; format 2 stores the zero itself.

    qweight [in * b / 32, out] int32 packed along the inputs, qzeros [groups, out * b / 32] int32 along the outputs,
    scales [groups, out] float16, g_idx [in] int32.
    """
    zeros = coded.filled_zeros()
    inputs = torch.arange(coded.codes.shape[1], dtype=torch.int32)
    return {
        "qweight": to_words(coded.codes, coded.bits).T.contiguous(),
        "qzeros": to_words((zeros - 1 if first else zeros).T.contiguous(), coded.bits),
        "scales": coded.scales.to(torch.float16).T.contiguous(),
        "g_idx": inputs // coded.width,
    }


def decode(stored: Mapping[str, Tensor], bits: int, width: int, first: bool, what: str) -> PlainCodes:
    """The inverse of `encode`; BnError (exit 3) when shapes do not fit or inputs are in another order (act-order)."""
    groups, out = stored["scales"].shape
    inputs = stored["qweight"].shape[0] * 32 // bits
    order = stored.get("g_idx")
    if order is not None and not torch.equal(order.long(), torch.arange(inputs) // width):
        raise bad_input(
            f"{what}: its groups are not runs of {width} inputs (activation order, g_idx)",
            "such a GPTQ model is not read; quantize the original with `desc_act: false`",
        )
    if stored["qweight"].shape[1] != out or groups != -(-inputs // width):
        raise bad_input(f"{what}: qweight, scales and group size do not fit each other")
    codes = from_words(stored["qweight"].T, bits, inputs, f"{what}.qweight")
    zeros = from_words(stored["qzeros"], bits, out, f"{what}.qzeros").T
    if first:
        zeros = (zeros + 1) & ((1 << bits) - 1)
    return PlainCodes(codes, stored["scales"].T.contiguous(), zeros.contiguous(), bits, width)


def sizes(
    settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], what: str
) -> tuple[int, int, int]:
    """(bits, inputs, width) of one module from the shapes of its tensors, the config where they leave a choice."""
    words, groups = shapes["qweight"][0], shapes["scales"][0]
    bits, group = settings.get("bits"), settings.get("group_size", -1)
    if "g_idx" in shapes:
        inputs = shapes["g_idx"][0]
        bits = words * 32 // inputs if inputs else bits
    if bits not in BITS:
        raise bad_input(f"{what}: {bits!r} bits is not one of {', '.join(map(str, BITS))}")
    inputs = words * 32 // bits
    if groups == 1:
        return bits, inputs, inputs
    if isinstance(group, int) and group > 0 and -(-inputs // group) == groups:
        return bits, inputs, group
    if inputs % groups:
        raise bad_input(f"{what}: {groups} groups of {inputs} inputs have no whole size")
    return bits, inputs, inputs // groups
