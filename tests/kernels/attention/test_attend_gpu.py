"""Attention over packed rows on a GPU, without one: interpreted for equality, compiled ahead of time for its size."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.without_gpu import check_resources, compiled, interpret

pytest.importorskip("triton", reason="the extra `gpu` is not installed")

POINTERS = {
    "out": "*fp32", "top": "*fp32", "total": "*fp32", "query": "*fp32", "packed": "*u8", "widths": "*i32",
    "starts": "*i32", "levels": "*fp32", "mean": "*fp32",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_attends_like_the_cpu():
    interpret(Path(__file__).with_name("interpreted_attend.py"))


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("width", [64, 128])
def test_the_kernel_fits_the_registers_and_the_shared_memory(target, width, tmp_path):
    from bntools.kernels.attention import attend_gpu

    given = {"WIDTH": width, "TOKENS": attend_gpu.TOKENS}
    built = compiled(
        attend_gpu.attend_kernel, target, given, POINTERS, aligned=True, num_warps=attend_gpu.WARPS
    )
    check_resources(built, target, tmp_path)
