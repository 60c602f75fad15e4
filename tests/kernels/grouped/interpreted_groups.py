"""Run by test_groups_triton.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import pytest
import torch
from support.packed_samples import random_packed

from bntools.kernels.grouped import operations as grouped_operations
from bntools.kernels.grouped.operations import dequantize_reference, matvec_reference

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_groups_triton.py"

SHAPES = ((5, 40, 16), (3, 37, 12), (9, 24, -1), (2, 9, 64))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_gpu_kernels_agree_with_the_reference(bits, transposed, symmetric):
    from bntools.kernels.grouped import gpu as grouped_gpu

    grouped_gpu.DEPTH = 32
    for rows, cols, group in SHAPES:
        p = random_packed(rows, cols, bits, group, symmetric, transposed, seed=rows)
        for dtype in (torch.float32, torch.float16):
            assert torch.equal(grouped_gpu.dequantize(p, dtype), dequantize_reference(p, dtype)), (
                rows,
                cols,
                dtype,
            )
        x = torch.randn(2, p.shape[1])
        torch.testing.assert_close(
            grouped_gpu.matvec(p, x), matvec_reference(p, x), rtol=1e-5, atol=2e-4 * 2**bits / 8
        )


def test_rows_beyond_one_program_are_summed_per_ic():
    from bntools.kernels.grouped import gpu as grouped_gpu

    p = random_packed(300, 16, 3, 8, False, True, seed=0)
    x = torch.randn(1, 300)
    torch.testing.assert_close(grouped_gpu.matvec(p, x), matvec_reference(p, x), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_gpu_multiplies_many_vectors_block_by_block(transposed, monkeypatch):
    monkeypatch.setattr(grouped_operations, "_on_gpu", lambda codes: True)
    monkeypatch.setattr(grouped_operations, "GPU_BLOCK", 60)
    p = random_packed(9, 24, 3, 8, False, transposed, seed=0)
    for count in (1, grouped_operations.FEW + 1):
        x = torch.randn(count, p.shape[1])
        torch.testing.assert_close(
            grouped_operations.matvec(p, x), matvec_reference(p, x), rtol=1e-5, atol=2e-4
        )
