"""The GPU kernels without a GPU: interpreted for equality, compiled ahead of time for their resources."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.without_gpu import check_resources, compiled, interpret

pytest.importorskip("triton", reason="the extra `gpu` is not installed")

POINTERS = {
    "parts": "*fp32", "x": "*fp32", "signs": "*u8", "left": "*fp16", "right": "*fp16", "scale": "*fp32",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_gives_the_weights_and_products_of_the_cpu():
    interpret(Path(__file__).with_name("interpreted_absolute.py"))


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(("kernel", "out"), [("dense", "*fp16"), ("dense", "*bf16"), ("product", "*fp32")])
@pytest.mark.parametrize("ones", [(), ("rows", "cols", "width", "count", "rank", "n")])
def test_a_gpu_kernel_fits_the_registers_and_the_shared_memory(kernel, out, ones, target, tmp_path):
    """ones: sizes that are 1, which triton makes constants."""
    from bntools.kernels.stack import absolute_binary_gpu

    tile = {"dense": absolute_binary_gpu.DENSE, "product": absolute_binary_gpu.PRODUCT}[kernel]
    function = getattr(absolute_binary_gpu, f"{kernel}_kernel")
    given = {**tile, **dict.fromkeys(ones, 1)}
    built = compiled(function, target, given, {**POINTERS, "out": out}, aligned=True)
    check_resources(built, target, tmp_path)
    assert ("mma" in built.asm["ptx"]) == (kernel == "product")  # on tensor cores
    assert ("cvt.rn.bf16" in built.asm["ptx"]) == (out == "*bf16")  # rounded, not cut off
