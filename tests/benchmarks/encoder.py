"""Cosine of the embeddings of an encoder to those of the original, at 3 bits by several codes.

usage: encoder.py [MODEL_DIR]      MiniLM, whose weights are true float32, is fetched where no model is named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

BITS = ("--bits", "3", "--group-size", "128")
FINE = ("--method", "gptq", "--trellis", "5", "--refit", "2", "--bits", "3", "--group-size", "48")
ROWS = {
    **{f"RTN {dim}": ("--dim", dim, *BITS) for dim in ("oc", "ic", "ada")},
    **{f"GPTQ {dim}": ("--method", "gptq", "--dim", dim, *BITS) for dim in ("oc", "ic", "ada")},
    "GPTQ, grids searched": ("--method", "gptq", "--grid", "weighted", *BITS),
    **{f"trellis, scales of {bits} bits": (*FINE, "--scales", bits) for bits in (2, 4)},
}  # fmt: skip


def bntools(*words: object) -> str:
    command = [sys.executable, "-m", "bntools", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    print(f"{'':24} {'bits':>6} {'MB':>6} {'1 - cosine':>11} {'':9} {'similarity, rms error':>22}")
    with tempfile.TemporaryDirectory() as scratch:
        model = sys.argv[1] if len(sys.argv) > 1 else f"{scratch}/minilm/"
        if len(sys.argv) < 2:
            bntools("fetch", "minilm", "-o", model)
        for name, words in ROWS.items():
            path = Path(scratch) / "q.safetensors"
            bntools("quantize", model, *words, "-qfo", path)
            found = json.loads(bntools("eval", path, "--against", model, "--json"))
            print(
                f"{name:24} {found['bits_per_weight']['linear']:6.3f} {found['bytes'] / 1e6:6.1f} "
                f"{1 - found['cosine']['mean']:11.4f} ±{found['cosine']['se']:.4f} "
                f"{found['similarity_rms_error']:22.4f}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
