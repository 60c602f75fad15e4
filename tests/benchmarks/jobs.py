"""What --on local --jobs 2 costs beside the plain run of the same work, and what a killed run leaves.

usage: python tests/benchmarks/jobs.py [REPLICATES [KILLS]]     KILLS of a report, and as many of a model's tensors
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file


def timed(words: list[str]) -> tuple[float, float, bytes]:
    """Wall and CPU seconds of a command and its children, and what it prints."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    out = subprocess.run([sys.executable, "-m", "bntools", *words], stdout=subprocess.PIPE, check=True).stdout
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu, out


def killed(words: list[str], chance: random.Random, longest: float) -> bool:
    """Kill every process of a run at some moment; whether it still ran."""
    child = subprocess.Popen([sys.executable, "-m", "bntools", *words], start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        child.wait(chance.uniform(0.1, longest))
        return False
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return True


def tensors(path: str) -> dict[str, bytes]:
    """The bytes of each tensor of a file."""
    return {name: t.view(-1).view(torch.uint8).numpy().tobytes() for name, t in load_file(path).items()}


def kill_models(kills: int, folder: str) -> None:
    """A model quantized in parts, killed and called again: are the tensors those of the plain run?"""
    words = ["quantize", "default:", "--bits", "3", "--method", "rtn", "--calib", "none", "-q", "-f"]
    timed([*words, "-o", f"{folder}/plain.st"])
    whole, chance, hit, same = tensors(f"{folder}/plain.st"), random.Random(1), 0, 0
    parts = [*words, "-o", f"{folder}/parts.st", "--on", "local", "--jobs", "2", "--work"]
    longest = timed([*parts, f"{folder}/model"])[0]
    for number in range(kills):
        again = [*parts, f"{folder}/model-{number}"]
        hit += killed(again, chance, longest)
        timed(again)
        same += tensors(f"{folder}/parts.st") == whole
    print(
        f"SIGKILL of all processes of a quantize: {hit} of {kills} hit, {same} ended with the plain tensors"
    )


def main() -> None:
    replicates, kills = (*sys.argv[1:], "100000", "10")[:2] if len(sys.argv) < 3 else sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs.jsonl"
        lines = [{"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28}
                 for n in (1e6, 3e6, 1e7, 3e7) for d in (1e8, 3e8, 1e9)]  # fmt: skip
        runs.write_text("".join(json.dumps(line) + "\n" for line in lines))
        words = ["scale-fit", str(runs), "--bootstrap", replicates, "--json", "-q"]
        wall, cpu, whole = timed([*words, "--threads", "1"])
        parts = timed([*words, "--on", "local", "--jobs", "2", "--work", f"{folder}/run"])
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"plain, one thread  {wall:.1f} s wall, {cpu:.1f} s CPU")
        print(f"--on local --jobs 2  {parts[0] / wall:.2f} of the wall, {parts[1] / cpu:.2f} of the CPU, "
              f"{'the same' if parts[2] == whole else 'ANOTHER'} report")  # fmt: skip
        few, chance, hit, same = [*words[:3], "8000", *words[4:]], random.Random(0), 0, 0
        whole = timed(few)[2]
        longest = timed([*few, "--on", "local", "--jobs", "2", "--work", f"{folder}/timed"])[0]
        for number in range(int(kills)):
            again = [*few, "--on", "local", "--jobs", "2", "--work", f"{folder}/run-{number}"]
            hit += killed(again, chance, longest)
            same += timed(again)[2] == whole
        if not int(kills):
            return
        print(f"SIGKILL of all processes: {hit} of {kills} runs hit, {same} ended with the plain report")
        kill_models(int(kills), folder)


if __name__ == "__main__":
    main()
