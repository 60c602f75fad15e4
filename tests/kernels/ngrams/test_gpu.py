"""The GPU kernel without a GPU: interpreted for equality, compiled ahead of time for its resources."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.without_gpu import check_resources, compiled, interpret

pytest.importorskip("triton", reason="the extra `gpu` is not installed")


@pytest.mark.slow
def test_the_gpu_counts_like_the_reference():
    interpret(Path(__file__).with_name("interpreted_ngrams.py"), timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(("max_n", "ids"), [(4, "*i64"), (4, "*i32"), (6, "*i64")])
def test_the_gpu_kernel_fits_registers_and_shared_memory(max_n, ids, target, tmp_path):
    from bntools.kernels.ngrams.gpu import TILE, WARPS, clip_kernel

    given = {"N": max_n, **TILE}
    others = dict.fromkeys(clip_kernel.arg_names, "*i64")
    pointers = {**others, "stats": "*i32", "hyp": ids, "refs": ids}
    built = compiled(clip_kernel, target, given, pointers, num_warps=WARPS)
    check_resources(built, target, tmp_path)
