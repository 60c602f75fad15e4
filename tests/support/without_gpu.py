"""What tests of GPU kernels share: interpreted for equality, compiled ahead of time for their resources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}
"""Bytes one program may use: A100, H100."""


def interpret(script: Path, timeout: int = 300, **environment: str) -> None:
    """Run a file of tests in a process of its own, as triton reads TRITON_INTERPRET when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    env = {**os.environ, "TRITON_INTERPRET": "1", **environment}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", run.stdout), run.stdout


def compiled(
    function: Any, target: int, constants: Mapping[str, Any], pointers: Mapping[str, str],
    aligned: bool = False, **options: int,
) -> Any:  # fmt: skip
    """A kernel for sm_<target>; arguments that are neither constants nor pointers are 32-bit integers.

    aligned: pointers are multiples of 16 bytes, as torch's are.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = function.arg_names
    given = {name: value for name, value in constants.items() if name in names}
    signature = {name: "constexpr" if name in given else pointers.get(name, "i32") for name in names}
    places = {(names.index(name),): value for name, value in given.items()}
    whole = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if aligned and name in pointers}
    source = ASTSource(function, signature, places, whole)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options or None)


def check_resources(built: Any, target: int, folder: Path) -> None:
    """No more shared memory than there is, and no registers spilled."""
    assert built.metadata.shared <= SHARED_MEMORY[target]
    said = _ptxas(built.asm["ptx"], folder)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said)]
    assert spills == [0, 0], said


def _ptxas(ptx: str, folder: Path) -> str:
    """What ptxas says about registers and spills; triton ships several, one of which takes this PTX."""
    import triton

    source = folder / "kernel.ptx"
    source.write_text(ptx)
    found = re.search(r"[.]target (sm_[0-9a-z]+)", ptx)
    assert found, ptx[:400]
    options = ["-v", f"--gpu-name={found[1]}", source, "-o", folder / "kernel.cubin"]
    programs = sorted((Path(triton.__file__).parent / "backends/nvidia/bin").glob("ptxas*"))
    runs = [subprocess.run([program, *options], capture_output=True, text=True) for program in programs]
    said = [run.stderr for run in runs if run.returncode == 0]
    assert said, [run.stderr for run in runs]
    return said[0]
