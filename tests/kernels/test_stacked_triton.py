"""The GPU kernels without a GPU: interpreted for equality, compiled ahead of time for their resources."""

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
    "out": "*fp16", "y": "*fp32", "x": "*fp32", "kind": "*i32", "words": "*i32", "row_scale": "*fp32",
    "col_scale": "*fp32", "row_class": "*i16", "col_class": "*i16", "shrink": "*fp32", "planes": "*u8",
    "first": "*i32", "depth": "*u8", "start": "*i32", "listed": "*i32", "levels": "*i16", "cols_of": "*i32",
}  # fmt: skip


@pytest.mark.slow
def test_the_gpu_gives_the_weights_and_products_of_the_cpu():
    script = Path(__file__).with_name("interpreted_stacked.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    run = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", run.stdout), run.stdout


def compiled(kernel: str, bits: int, plain: bool, target: int):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bntools.kernels import stacked_triton

    function = getattr(stacked_triton, f"{kernel}_kernel")
    pointers = {**POINTERS, "rows": "*i32"} if kernel == "listed" else POINTERS
    tile = {"dense": stacked_triton.DENSE, "product": stacked_triton.PRODUCT}.get(kernel, {})
    every = {"BITS": bits, "DEEPEST": 8, "PLAIN": plain, "SIZE": stacked_triton.LISTED, **tile}
    names = function.arg_names
    given = {name: value for name, value in every.items() if name in names}
    signature = {name: "constexpr" if name in given else pointers.get(name, "i32") for name in names}
    places = {(names.index(name),): value for name, value in given.items()}
    return triton.compile(ASTSource(function, signature, places), target=GPUTarget("cuda", target, 32))


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(
    ("kernel", "bits", "plain"),
    [
        ("dense", 4, True),
        ("dense", 8, True),
        ("listed", 4, True),
        ("product", 4, True),
        ("product", 8, False),
    ],
)
def test_a_gpu_kernel_fits_the_registers_and_the_shared_memory(kernel, bits, plain, target, tmp_path):
    built = compiled(kernel, bits, plain, target)
    assert built.metadata.shared <= SHARED_MEMORY[target]
    said = resources(built.asm["ptx"], tmp_path)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said)]
    assert spills == [0, 0], said
