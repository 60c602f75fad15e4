"""The GPU decoder without a GPU: interpreted for equality, compiled ahead of time for its resources."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.without_gpu import check_resources, compiled, interpret

pytest.importorskip("triton", reason="the extra `gpu` is not installed")

POINTERS = {
    "levels": "*i16", "good": "*i32", "words": "*u16", "starts": "*i64", "sizes": "*i64", "row_class": "*i16",
    "col_class": "*i16", "packed": "*i32", "symbols": "*u8",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_decodes_what_the_cpu_decodes():
    interpret(Path(__file__).with_name("interpreted_rans.py"))


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("sets", [1, 2])
def test_the_gpu_decoder_fits_the_registers_and_the_shared_memory(sets, target, tmp_path):
    from bntools.kernels.entropy import dependent_trellis, rans_gpu

    even, odd, dense = rans_gpu._machine(dependent_trellis.MACHINE)
    given = {"SETS": sets, "EVEN": even, "ODD": odd, "DENSE": dense, "LANES": rans_gpu.LANES}
    built = compiled(rans_gpu.decode_kernel, target, given, POINTERS, num_warps=1)
    check_resources(built, target, tmp_path)
