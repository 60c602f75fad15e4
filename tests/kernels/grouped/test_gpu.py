"""The GPU kernels without a GPU: interpreted for equality, compiled ahead of time for their resources."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.without_gpu import check_resources, compiled, interpret

pytest.importorskip("triton", reason="the extra `gpu` is not installed")

POINTERS = {
    "y": "*fp32", "parts": "*fp32", "values": "*fp16", "x": "*fp32", "codes": "*u8", "scales": "*fp16",
    "zeros": "*u8",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_gives_the_weights_of_the_reference():
    interpret(Path(__file__).with_name("interpreted_groups.py"))


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("kernel", ["dense", "right", "left"])
@pytest.mark.parametrize(("bits", "symmetric"), [(2, False), (3, False), (3, True), (4, False), (8, False)])
def test_a_gpu_kernel_fits_the_registers_and_the_shared_memory(kernel, bits, symmetric, target, tmp_path):
    from bntools.kernels.grouped import gpu as grouped_gpu

    tile = {"dense": grouped_gpu.DENSE, "right": grouped_gpu.RIGHT, "left": grouped_gpu.LEFT}[kernel]
    given = {"BITS": bits, "SYMMETRIC": symmetric, "WIDTH": 128, "ALIGNED": True, **tile}
    function = getattr(grouped_gpu, f"{kernel}_kernel")
    given["DEPTH"] = grouped_gpu.DEPTH
    check_resources(compiled(function, target, given, POINTERS, aligned=True), target, tmp_path)
