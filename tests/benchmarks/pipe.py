"""What one artifact costs in a pipe, beside `cat`: 1 GiB as 64 tensors of 16 MiB.

usage: python tests/benchmarks/pipe.py [RUNS]    Prints CPU seconds of both processes, wall time and peak memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

WRITER = """
from bntools.core.writer import Writer
block = bytes(16 << 20)
with Writer("-", "tensors") as out:
    for index in range(64):
        out.add_raw(f"t{index:03d}", "U8", (16 << 20,), block)
"""
STREAM = """
from bntools.core import artifact
assert sum(len(data) for _, data in artifact.stream(0)) == 1 << 30
"""
RANDOM = """
from bntools.core.source import open_input
assert len(open_input("-").raw("t031")) == 16 << 20
"""
MEMORY = (
    "\nimport resource, sys\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code + MEMORY]


ROUTES = {
    "head -c 1G /dev/zero | cat": (["head", "-c", "1G", "/dev/zero"], ["cat"]),
    "writer | cat": (python(WRITER), ["cat"]),
    "writer | streaming reader": (python(WRITER), python(STREAM)),
    "writer | random access, one tensor": (python(WRITER), python(RANDOM)),
    "start-up of writer and reader alone": (
        python("import bntools.core.artifact.writer"),
        python("import bntools.core.model.open"),
    ),
}


def measure(first: list[str], second: list[str]) -> tuple[float, float, list[str]]:
    """CPU and wall seconds of a pipe, and what its processes say of their memory."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    writer = subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reader = subprocess.Popen(
        second, stdin=writer.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.close()
    said = [reader.communicate()[1].strip(), (writer.stderr.read() if writer.stderr else "").strip()]
    if writer.wait() or reader.returncode:
        sys.exit("\n".join(said))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began, said


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{'route':<38}{'CPU s':>8}{'of cat':>8}{'wall s':>8}{'reader MB':>11}{'writer MB':>11}")
    base = 0.0
    for name, route in ROUTES.items():
        cpu, wall, said = min(measure(*route) for _ in range(runs))
        base = base or cpu
        memory = "".join(f"{int(text) / 1000:>11.0f}" if text else f"{'-':>11}" for text in said)
        print(f"{name:<38}{cpu:>8.2f}{cpu / base:>8.2f}{wall:>8.2f}{memory}")


if __name__ == "__main__":
    main()
