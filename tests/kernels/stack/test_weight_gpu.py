"""The GPU kernels without a GPU: interpreted for equality, compiled ahead of time for their resources."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.without_gpu import check_resources, compiled, interpret

pytest.importorskip("triton", reason="the extra `gpu` is not installed")

POINTERS = {
    "out": "*fp16", "y": "*fp32", "x": "*fp32", "kind": "*i32", "words": "*i32", "row_scale": "*fp32",
    "col_scale": "*fp32", "row_class": "*i16", "col_class": "*i16", "shrink": "*fp32", "planes": "*u8",
    "first": "*i32", "depth": "*u8", "start": "*i32", "listed": "*i32", "levels": "*i16", "which": "*i32",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_gives_the_weights_and_products_of_the_cpu():
    interpret(Path(__file__).with_name("interpreted_stacked.py"))


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(
    ("kernel", "bits", "plain"),
    [
        ("rows", 4, True),
        ("rows", 8, True),
        ("listed", 4, True),
        ("product", 4, True),
        ("product", 8, False),
    ],
)
@pytest.mark.parametrize("ones", [(), ("stride", "kinds", "count", "rows", "cols", "width")])
def test_a_gpu_kernel_fits_the_registers_and_the_shared_memory(kernel, bits, plain, ones, target, tmp_path):
    """ones: sizes that are 1, which triton makes constants, as the stride of planes in memory of their own is."""
    from bntools.kernels.stack import weight_gpu as stack_weight_gpu

    function = getattr(stack_weight_gpu, f"{kernel}_kernel")
    tiles = {
        "rows": stack_weight_gpu.ROWS,
        "listed": stack_weight_gpu.LISTED,
        "product": stack_weight_gpu.PRODUCT,
    }
    given = {"BITS": bits, "DEEPEST": 7, "TRELLIS": 2, "PLAIN": plain}
    given |= tiles[kernel] | dict.fromkeys(ones, 1)
    check_resources(compiled(function, target, given, POINTERS), target, tmp_path)
