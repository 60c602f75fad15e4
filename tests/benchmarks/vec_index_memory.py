"""Peak memory of a process that builds a vector index, by the number of rows: codes grow with them, nothing else."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile

import numpy as np

CODE = (
    "import resource, sys; from bntools import cli; cli.run(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)"
)


def peak(rows: int, width: int, extra: list[str]) -> int:
    """Megabytes, the mapped file of float16 among them, of a build with 96 bytes a vector and a second code."""
    with tempfile.TemporaryDirectory() as folder:
        target = np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.float16, (rows, width))
        random = np.random.default_rng(0)
        for start in range(0, rows, 10_000):
            stop = min(start + 10_000, rows)
            drawn = random.standard_normal((stop - start, width), np.float32) * np.geomspace(3, 0.1, width)
            target[start:stop] = drawn
        target.flush()
        words = ["vec-index", f"{folder}/x.npy", "--bytes", "96", "--second", "lvq8", "-q", "--threads", "1"]
        words = [sys.executable, "-c", CODE, *words, "-o", f"{folder}/x.vec", *extra]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(ended.stderr.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 50_000])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--graph", action="store_true")
    given = parser.parse_args()
    peaks = []
    for rows in given.rows:
        peaks.append(peak(rows, given.width, ["--graph"] if given.graph else []))
        print(f"{rows:9,} x {given.width}: peak {peaks[-1]:,} MB", flush=True)
    slope = (peaks[-1] - peaks[0]) / (given.rows[-1] - given.rows[0])
    print(
        f"{1e6 * slope:,.0f} bytes a row; 1,000,000 rows: {peaks[0] + slope * (1e6 - given.rows[0]):,.0f} MB"
    )


if __name__ == "__main__":
    main()
