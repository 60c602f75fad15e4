"""The GPU decoder without a GPU: interpreted for equality, compiled ahead of time for its resources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_groups_triton import SHARED_MEMORY, resources

triton = pytest.importorskip("triton", reason="the extra `gpu` is not installed")

POINTERS = {
    "levels": "*i16", "good": "*i32", "words": "*u16", "starts": "*i64", "sizes": "*i64", "row_class": "*i16",
    "col_class": "*i16", "packed": "*i32", "symbols": "*u8",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_decodes_what_the_cpu_decodes():
    script = Path(__file__).with_name("interpreted_rans.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    run = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", run.stdout), run.stdout


def compiled(sets: int, target: int):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bntools.kernels import rans_triton, trellis

    even, odd, dense = rans_triton._machine(trellis.MACHINE)
    given = {"SETS": sets, "EVEN": even, "ODD": odd, "DENSE": dense, "LANES": rans_triton.LANES}
    names = rans_triton.decode_kernel.arg_names
    signature = {name: "constexpr" if name in given else POINTERS.get(name, "i32") for name in names}
    places = {(names.index(name),): value for name, value in given.items()}
    source = ASTSource(rans_triton.decode_kernel, signature, places)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": 1})


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("sets", [1, 2])
def test_the_gpu_decoder_fits_the_registers_and_the_shared_memory(sets, target, tmp_path):
    built = compiled(sets, target)
    assert built.metadata.shared <= SHARED_MEMORY[target]
    said = resources(built.asm["ptx"], tmp_path)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said)]
    assert spills == [0, 0], said
