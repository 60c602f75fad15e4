"""Run by test_attend_gpu.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from bntools.kernels.attention import attend_cpu, attend_gpu, packed_rows

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_attend_gpu.py"


@pytest.mark.parametrize(("half", "tokens", "groups"), [(16, 70, 3), (20, 64, 1), (64, 130, 2), (8, 1, 1)])
def test_the_gpu_attends_like_the_cpu(half, tokens, groups):
    rng = np.random.default_rng(half + tokens)
    widths = rng.integers(0, 7, 2 * half).astype(np.uint8)
    codes = rng.integers(0, 1 << widths[None].astype(int), (tokens, 2 * half)).astype(np.uint8)
    levels = rng.normal(size=(2 * half, 64)).astype(np.float32)
    query, mean = (
        rng.normal(size=(groups, half)).astype(np.float32),
        rng.normal(size=groups).astype(np.float32),
    )
    packed = packed_rows.pack(codes, widths)
    expected = attend_cpu.attend(query, packed, widths, levels, mean)
    found = attend_gpu.attend(*map(torch.from_numpy, (query, packed, widths, levels, mean)))
    assert np.allclose(found.numpy(), expected, atol=2e-5)
