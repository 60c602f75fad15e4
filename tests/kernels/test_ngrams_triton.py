"""The GPU kernel without a GPU: interpreted for equality, compiled ahead of time for its resources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_groups_triton import SHARED_MEMORY, resources

triton = pytest.importorskip("triton", reason="the extra `gpu` is not installed")


@pytest.mark.slow
def test_the_gpu_counts_like_the_reference():
    script = Path(__file__).with_name("interpreted_ngrams.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    run = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", run.stdout), run.stdout


def compiled(max_n: int, ids: str, target: int):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bntools.kernels.ngrams_triton import TILE, WARPS, clip_kernel

    given = {"N": max_n, **TILE}
    pointers = {"stats": "*i32", "hyp": ids, "refs": ids}
    names = clip_kernel.arg_names
    signature = {n: "constexpr" if n in given else pointers.get(n, "*i64") for n in names}
    places = {(names.index(n),): value for n, value in given.items()}
    source = ASTSource(clip_kernel, signature, places, {})
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": WARPS})


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(("max_n", "ids"), [(4, "*i64"), (4, "*i32"), (6, "*i64")])
def test_the_gpu_kernel_fits_registers_and_shared_memory(max_n, ids, target, tmp_path):
    built = compiled(max_n, ids, target)
    assert built.metadata.shared <= SHARED_MEMORY[target]
    said = resources(built.asm["ptx"], tmp_path)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said)]
    assert len(spills) == 2, said
    assert spills == [0, 0], said
