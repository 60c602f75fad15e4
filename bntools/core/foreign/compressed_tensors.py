"""The compressed-tensors format `pack-quantized`, both ways, for one linear weight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.foreign.plain_codes import PlainCodes
from bntools.core.foreign.words import from_words, to_words

FORMAT = "pack-quantized"
PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")


def encode(coded: PlainCodes) -> dict[str, Tensor]:
    """Tensors of one module, codes packed densely (compressed-tensors 0.20 and later).

    weight_packed [out, ceil(in * b / 32)] int32, weight_scale [out, groups], weight_shape [2] int64; asymmetric
    also weight_zero_point [ceil(out * b / 32), groups] int32, packed along the outputs.
    """
    tensors = {
        "weight_packed": to_words(coded.codes, coded.bits),
        "weight_scale": coded.scales.contiguous(),
        "weight_shape": torch.tensor(coded.codes.shape, dtype=torch.int64),
    }
    if coded.zeros is not None:
        tensors["weight_zero_point"] = to_words(coded.zeros.T.contiguous(), coded.bits).T.contiguous()
    return tensors


def decode(
    stored: Mapping[str, Tensor], bits: int, width: int, shape: tuple[int, int], what: str
) -> PlainCodes:
    """The inverse of `encode`, also of the older packing of floor(32 / b) codes a word.

    Raises BnError (exit 3) when shapes do not fit or the inputs are in another order (actorder).
    """
    out, inputs = shape
    groups = -(-inputs // width)
    order = stored.get("weight_g_idx")
    if order is not None and not torch.equal(order.long(), torch.arange(inputs) // width):
        raise bad_input(f"{what}: its groups are not runs of inputs (actorder)", "such a model is not read")
    scales = stored["weight_scale"].reshape(-1, groups) if groups == 1 else stored["weight_scale"]
    if tuple(scales.shape) != (out, groups) or stored["weight_packed"].shape[0] != out:
        raise bad_input(f"{what}: weight_packed, weight_scale and weight_shape do not fit each other")
    codes = from_words(stored["weight_packed"], bits, inputs, f"{what}.weight_packed")
    zeros = stored.get("weight_zero_point")
    if zeros is None:
        return PlainCodes(codes, scales, None, bits, width)
    if zeros.dtype == torch.int32:
        plain = from_words(zeros.T, bits, out, f"{what}.weight_zero_point").T.contiguous()
    else:  # before zeros were packed, they were signed bytes
        plain = (zeros.reshape(out, groups).to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)
    return PlainCodes(codes, scales, plain, bits, width)


def weights_of(settings: Mapping[str, Any], module: str) -> dict[str, Any]:
    """The weight scheme of one module: by its name, by a pattern, by its class, in that order of precedence."""
    groups = settings.get("config_groups") or {}
    ranked = []
    for group in groups.values():
        for target in group.get("targets") or []:
            if target == module:
                ranked.append((0, group))
            elif target.startswith("re:") and re.match(target[3:], module):
                ranked.append((1, group))
            elif target == "Linear":
                ranked.append((2, group))
    if not ranked:
        raise bad_input(f"{module}: packed, but no group of the quantization_config targets it")
    group = min(ranked, key=lambda item: item[0])[1]
    kind = group.get("format") or settings.get("format")
    scheme = group.get("weights") or {}
    if (
        kind != FORMAT
        or scheme.get("type", "int") != "int"
        or scheme.get("strategy") not in ("group", "channel")
    ):
        raise bad_input(
            f"{module}: compressed-tensors {kind!r}, {scheme.get('type')} by {scheme.get('strategy')} is not read",
            f"read is {FORMAT}, int by group or channel",
        )
    return scheme
