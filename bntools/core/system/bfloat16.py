"""Products of matrices in bfloat16 on processors that are made for them: twice the speed of float32 and more."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def gains(device: Any) -> bool:
    """Whether the device is a CPU that multiplies bfloat16 by instructions of its own (AVX512_BF16 or AMX)."""
    probes = (
        "_is_avx512_bf16_supported",
        "_is_amx_tile_supported",
    )  # not public in torch, so perhaps not there
    return torch.device(device).type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)


def products(mixed: bool) -> contextlib.AbstractContextManager[Any]:
    """A context in which linears and attention of this thread, on the CPU, round their factors to bfloat16 if asked
    to; norms, sums and what is added to the residual stream stay float32."""
    return torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
