"""The GPU kernels without a GPU: interpreted for equality, compiled ahead of time for their resources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="the extra `gpu` is not installed")

SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}
"""Bytes one program may use: A100, H100."""


@pytest.mark.slow
def test_the_gpu_gives_the_weights_of_the_reference():
    script = Path(__file__).with_name("interpreted_groups.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    run = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", run.stdout), run.stdout


def compiled(kernel: str, bits: int, symmetric: bool, target: int):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bntools.kernels import groups_triton

    pointers = {
        "y": "*fp32",
        "parts": "*fp32",
        "values": "*fp16",
        "x": "*fp32",
        "codes": "*u8",
        "scales": "*fp16",
        "zeros": "*u8",
    }
    tile = {"dense": groups_triton.DENSE, "right": groups_triton.RIGHT, "left": groups_triton.LEFT}[kernel]
    given = {"BITS": bits, "SYMMETRIC": symmetric, "WIDTH": 128, "ALIGNED": True, **tile}
    if kernel == "left":
        given["DEPTH"] = groups_triton.DEPTH
    function = getattr(groups_triton, f"{kernel}_kernel")
    signature = {
        name: "constexpr" if name in given else pointers.get(name, "i32") for name in function.arg_names
    }
    places = {(i,): given[name] for i, name in enumerate(function.arg_names) if name in given}
    attributes = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if name in pointers
    }
    return triton.compile(
        ASTSource(function, signature, places, attributes), target=GPUTarget("cuda", target, 32)
    )


def resources(ptx: str, folder: Path) -> str:
    """What ptxas says about registers and spills; triton ships several, one of which takes this PTX."""
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    options = [
        "-v",
        f"--gpu-name={re.search(r'[.]target (sm_[0-9a-z]+)', ptx)[1]}",
        source,
        "-o",
        folder / "kernel.cubin",
    ]
    programs = sorted((Path(triton.__file__).parent / "backends/nvidia/bin").glob("ptxas*"))
    runs = [subprocess.run([program, *options], capture_output=True, text=True) for program in programs]
    said = [run.stderr for run in runs if run.returncode == 0]
    assert said, [run.stderr for run in runs]
    return said[0]


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("kernel", ["dense", "right", "left"])
@pytest.mark.parametrize(("bits", "symmetric"), [(2, False), (3, False), (3, True), (4, False), (8, False)])
def test_a_gpu_kernel_fits_the_registers_and_the_shared_memory(kernel, bits, symmetric, target, tmp_path):
    built = compiled(kernel, bits, symmetric, target)
    assert built.metadata.shared <= SHARED_MEMORY[target]
    said = resources(built.asm["ptx"], tmp_path)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said)]
    assert len(spills) == 2, said
    assert spills == [0, 0], said
