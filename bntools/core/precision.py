"""Products of matrices in bfloat16 on processors that are made for them: twice the speed of float32 and more."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 by instructions of its own (AVX512_BF16 or AMX)."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not public in torch, so perhaps not there
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def products(device: Any, mixed: bool) -> contextlib.AbstractContextManager[Any]:
    """A context in which linears and attention of this thread round their factors to bfloat16, if `mixed` and the
    device is a CPU that gains by it; norms, sums and what is added to the stream stay float32."""
    if mixed and torch.device(device).type == "cpu" and has_fast_bfloat16():
        return torch.autocast("cpu", torch.bfloat16)
    return contextlib.nullcontext()
