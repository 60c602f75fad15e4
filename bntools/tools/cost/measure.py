"""Rates of this machine: the best of several matrix products a type, and the best of reading and copying memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from bntools.core.errors import BnError

_SIZE = 1536
_STREAM = 256 << 20  # bytes: beyond the caches of most machines
_SECONDS = 1.0  # a rate is tried for so long
_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def measure_device(advance: Callable[[int], None], threads: int | None = None) -> dict[str, Any]:
    """The device file of this machine's processor: what its libraries reached, the best of many tries.

    Rates are lower bounds of what the silicon can do and upper bounds of what the same libraries do later, as far as
    the machine was idle.
    """
    import torch

    peak = {}
    for name, kind in _TYPES.items():
        peak[name] = _products(getattr(torch, kind))
        advance(1)
    bandwidth = max(_stream(copy=False), _stream(copy=True))
    advance(3)
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "name": os.uname().nodename.split(".")[0] or "here",
        "peak": peak,
        "bandwidth": bandwidth,
        "memory": pages,
        "source": f"measured by bntools cost --measure on {torch.get_num_threads()} threads, best of tries",
        "date": date.today().isoformat(),
    }


def _products(dtype: Any) -> float:
    """FLOP/s of square matrix products."""
    import torch

    a, b = (torch.randn(_SIZE, _SIZE).to(dtype) for _ in range(2))
    return 2 * _SIZE**3 / _fastest(lambda: a @ b)


def _stream(copy: bool) -> float:
    """Bytes a second of reading one array, or of reading one and writing another."""
    import torch

    source = torch.ones(_STREAM // 4)
    if not copy:
        return source.nbytes / _fastest(lambda: source.sum())
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _fastest(function: Callable[[], Any]) -> float:
    function()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def write_device(device: dict[str, Any], path: str, force: bool) -> None:
    """Write a device file, whole or not at all."""
    from pathlib import Path

    from bntools.core.artifact.targets import publish, write_durably

    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        write_durably(temporary, json.dumps(device, indent=2).encode() + b"\n")
        publish(temporary, target, force)
    except OSError as error:
        raise BnError(f"cannot write {path}: {error.strerror}", "choose another place") from None
    finally:
        temporary.unlink(missing_ok=True)
