"""Print the sha256 of one output a command, of the embedded model and small made data: no move of code changes it.

usage: python tests/support/output_hashes.py > before; ...; python tests/support/output_hashes.py | diff before -
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COMMANDS = {
    "quantize": "quantize default: --bits 3 --dim ada",
    "quantize weighted": "quantize default: --bits 3 --grid weighted --calib-tokens 2048",
    "quantize gptq": "quantize default: --bits 3 --method gptq --calib-tokens 2048",
    "quantize budget": "quantize default: --budget 3.25 --calib-tokens 2048",
    "quantize entropy": "quantize default: --code entropy --budget 3 --calib-tokens 2048",
    "stack-compress": "stack-compress default: --calib-tokens 2048 --rescore 0 --curve 0",
    "bitstack": "stack-compress default: --codec bitstack --calib-tokens 2048 --curve 0",
    "eval": "eval q.safetensors --tokens 1024 --json",
    "info": "info q.safetensors --modules --json",
    "export hf": "export q.safetensors -o dense/",
    "export gguf": "export default: --to gguf -o m.gguf",
    "data-dim": "data-dim points.npy --estimator all --json",
    "scale-fit": "scale-fit runs.jsonl --json",
    "intrinsic-dim": "intrinsic-dim --data points.npz --dims 4,8 --json",
    "bleu-gpu": "bleu-gpu pairs.jsonl --json",
}
SECONDS = re.compile(
    rb'"(seconds|started|label|model|path|tokens_per_second|wall|runs|sha256)": ?("[^"]*"|[0-9.e+-]+)'
)


def make_inputs() -> None:
    """The files the commands read."""
    rng = np.random.default_rng(0)
    np.save("points.npy", rng.standard_normal((400, 3)) @ rng.standard_normal((3, 6)))
    x = rng.standard_normal((400, 10)).astype("f4")
    np.savez("points.npz", x=x, y=(x[:, 0] > 0).astype("i8"))
    runs = [{"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28}
            for n in (1e6, 3e6, 1e7, 3e7) for d in (1e8, 3e8, 1e9)]  # fmt: skip
    Path("runs.jsonl").write_text("\n".join(map(json.dumps, runs)) + "\n")
    pairs = [
        {"hyp": rng.integers(0, 9, 12).tolist(), "refs": [rng.integers(0, 9, 12).tolist()]} for _ in range(50)
    ]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")


def digest(words: list[str]) -> str:
    """sha256 of standard output, and of files the command made, times left out."""
    before = set(Path().iterdir())
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "bntools", *words], capture_output=True, env=environment, check=False
    )
    whole = hashlib.sha256()
    for path in sorted(set(Path().iterdir()) - before):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                whole.update(SECONDS.sub(b"", file.read_bytes()))
    whole.update(SECONDS.sub(b"", done.stdout))
    text = f"{whole.hexdigest()[:16]} exit {done.returncode}"
    return text if not done.returncode else f"{text} {done.stderr.decode()[:120]!r}"


def main() -> None:
    folder = os.path.join(
        tempfile.gettempdir(), "bntools-output-hashes"
    )  # a name of its own: histories hold paths
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        os.environ["PYTHONPATH"] = os.getcwd()
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = folder + "/cache"
        os.mkdir("cache")
        make_inputs()
        subprocess.run([sys.executable, "-m", "bntools", "quantize", "--bits", "4", "-o", "q.safetensors"],
                       capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, check=True)  # fmt: skip
        only = sys.argv[1:]
        for name, line in COMMANDS.items():
            if not only or name in only:
                print(f"{name:20} {digest(line.split())}", flush=True)


if __name__ == "__main__":
    main()
