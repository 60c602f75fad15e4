"""Run by test_absolute_triton.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from bntools.core.packing import bitstack
from bntools.kernels.stack import absolute_binary_gpu

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_absolute_triton.py"

CASES = [(1, 1, 1, 1), (5, 21, 2, 5), (20, 40, 3, 16), (70, 300, 2, 7), (33, 130, 1, 17), (9, 64, 0, 4)]
"""Rows, columns, levels that are there, rank."""


class Sample:
    """A weight as a file has it: random signs and factors, the last level cut off within its factors."""

    def __init__(self, rows, cols, levels, rank, scaled=True):
        rng = np.random.default_rng(rows)
        self.spec = bitstack.BitstackSpec((rows, cols), "F32", False, 3, rank, scaled)
        self.levels, self.scale = levels, torch.rand(cols) if scaled else None
        names, self.data = [self.spec.part_names("w")[0], *self.spec.block_names("w")], {}
        for name in names[: max(levels, 1)]:
            bits = rng.integers(0, 256, (rows, self.spec.width), np.uint8)
            left, right = (rng.normal(size=size).astype(np.float16) for size in ((rows, rank), (rank, cols)))
            self.data[name] = bitstack.dump(bits, left, right)
        if levels > 1:
            self.data[names[levels - 1]] = self.data[names[levels - 1]][: -rows // 2 - 1]

    def part(self, name):
        return self.data.get(name, b"")

    def dense(self, dtype=torch.float32):
        return bitstack.dense("w", self.spec, self.part, self.scale, dtype, self.levels)

    def there(self):
        levels = list(bitstack.read("w", self.spec, self.part, self.levels))
        assert len(levels) == self.levels
        return absolute_binary_gpu.to(levels, self.spec.shape, self.scale, "cpu")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scaled", [True, False])
def test_the_gpu_makes_the_weights_of_the_cpu(case, scaled):
    w = Sample(*case, scaled)
    for dtype in (torch.float32, torch.float16):
        assert torch.equal(absolute_binary_gpu.dense(w.there(), dtype), w.dense(dtype))
    # The interpreter cuts bfloat16 off; compiled it is rounded, which test_absolute_triton.py looks for.
    cut = (w.dense().view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)
    assert torch.equal(absolute_binary_gpu.dense(w.there(), torch.bfloat16), cut)


@pytest.mark.parametrize("rank", range(1, 17))
def test_any_rank_is_summed(rank):
    w = Sample(19, 75, 2, rank)
    there, x = w.there(), torch.randn(1, 75)
    assert torch.equal(absolute_binary_gpu.dense(there), w.dense())
    torch.testing.assert_close(absolute_binary_gpu.product(there, x), x @ w.dense().T, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_gpu_multiplies_like_the_cpu(case, count):
    w = Sample(*case)
    there, x = w.there(), torch.randn(count, case[1], generator=torch.Generator().manual_seed(0)) * 100
    inner = there.right.float().abs() * (x.abs() * there.scale)[:, None, None]  # [n, levels, k, in]
    size = torch.einsum("nlki,lok->no", inner, there.left.float().abs())
    found = absolute_binary_gpu.product(there, x)
    wanted = x.double() @ w.dense().double().T
    assert found.dtype == torch.float32
    assert found.shape == (count, case[0])
    assert ((found - wanted).abs() <= 1e-6 * size + 1e-20).all()


def test_the_parts_of_a_product_lose_at_most_a_millionth_in_tf32():
    """The kernel's cut, with what tensor cores drop of its parts dropped."""
    z = torch.randn(100_000) * torch.logspace(-20, 20, 100_000)
    high = (z.view(torch.int32) & -8192).view(torch.float32)
    low = ((z - high).view(torch.int32) & -8192).view(torch.float32)
    assert ((high.double() + low.double() - z.double()).abs() <= 2.0**-20 * z.double().abs()).all()
