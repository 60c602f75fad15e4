"""Run by test_stacked_triton.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from support.stacked_samples import sample

from bntools.kernels.stack import weight as stack_weight
from bntools.kernels.stack import weight_gpu as stack_weight_gpu

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_stacked_triton.py"

CASES = [
    (1, 1, 7, 0, 0), (5, 21, 15000, 3, 0), (11, 300, 127, 7, 2), (20, 64, 7, 2, 2), (9, 530, 200, 1, 1),
    (11, 300, 7, 7, 1), (5, 21, 15000, 1, 2),
]  # fmt: skip
"""out, in, the largest level, planes, how many of them are a trellis code's"""


def test_the_cases_have_levels_of_both_kinds_and_some_in_the_list():
    found = [sample(rows, cols, largest, planes, True).levels for rows, cols, largest, planes, _ in CASES]
    assert {levels.bits for levels in found} == {4, 8}
    assert any(len(levels.value) for levels in found)


@pytest.mark.parametrize(("rows", "cols", "largest", "planes", "trellis"), CASES)
@pytest.mark.parametrize("plain", [True, False])
def test_the_gpu_makes_the_weights_of_the_reference(rows, cols, largest, planes, trellis, plain):
    w = sample(rows, cols, largest, planes, plain, trellis=trellis)
    wanted = torch.from_numpy(stack_weight.rows_reference(w, np.arange(rows)))
    there = stack_weight_gpu.to(w, "cpu")
    for dtype in (torch.float32, torch.float16):
        assert torch.equal(stack_weight_gpu.dense(there, dtype), wanted.to(dtype))
    for which in (torch.arange(rows).flip(0), torch.tensor([rows - 1, 0, rows - 1]), torch.tensor([]).long()):
        assert torch.equal(stack_weight_gpu.rows(there, which), wanted[which])


def test_planes_are_exchanged_over_the_same_base():
    w, other = (sample(11, 300, 127, planes, False, trellis=trellis) for planes, trellis in ((7, 2), (3, 0)))
    there = stack_weight_gpu.to(w, "cpu")
    for new in (other, w):
        planes = {name: getattr(new, name) for name in ("bits", "first", "stride", "depth", "trellis")}
        changed, wanted = stack_weight_gpu.with_planes(there, **planes), w._replace(**planes)
        assert torch.equal(
            stack_weight_gpu.dense(changed),
            torch.from_numpy(stack_weight.rows_reference(wanted, np.arange(11))),
        )
        assert changed.words is there.words


def test_a_weight_all_of_whose_bits_are_1_is_multiplied_without_a_carry():
    """The fraction of each weight is then the largest that a byte has to hold."""
    w = sample(8, 64, 7, 7, True, trellis=2)
    w = w._replace(bits=np.full_like(w.bits, 255), depth=np.full_like(w.depth, 7))
    x = torch.eye(64)
    wanted = torch.from_numpy(stack_weight.rows_reference(w, np.arange(8)))
    found = stack_weight_gpu.product(stack_weight_gpu.to(w, "cpu"), x).T
    assert torch.allclose(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("rows", "cols", "largest", "planes", "trellis"), CASES)
@pytest.mark.parametrize("plain", [True, False])
def test_the_gpu_multiplies_like_the_cpu(rows, cols, largest, planes, trellis, plain):
    w = sample(rows, cols, largest, planes, plain, trellis=trellis)
    x = torch.randn(2, cols, generator=torch.Generator().manual_seed(0))
    dense = torch.from_numpy(stack_weight.rows_reference(w, np.arange(rows)))
    there = stack_weight_gpu.to(w, "cpu")
    found = stack_weight_gpu.product(there, x)
    assert stack_weight_gpu.product(there, x[:0]).shape == (0, rows)
    cpu = torch.stack([torch.from_numpy(stack_weight.product(w, row.numpy())) for row in x])
    size = x.abs() @ dense.abs().T
    assert ((found - x @ dense.T).abs() <= 2e-6 * size + 1e-20).all()
    assert ((found - cpu).abs() <= 4e-6 * size + 1e-5 * found.abs() + 1e-20).all()
