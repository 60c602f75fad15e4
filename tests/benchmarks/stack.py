"""One stack at many sizes beside files made for each size: divergence, time to make and to load, one picture.

usage: stack.py [MODEL_DIR] [--work DIR] [--plot FILE.svg] [--tokens N] [--beside bits,sizes,gptq]

MODEL_DIR is best the dithered SmolLM2 that `dithered.py` makes: the original lies on a 4-bit grid. Without it the
embedded model is used, at a few sizes of its own. A row of bits is the prefix whose linear weights take so many; the
embedding then has as many planes as the order gave it. --beside: also `quantize --code entropy` made for each row of
bits or each size, and GPTQ with groups of 128 at 3 bits. Seconds are CPU time of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bntools.core.artifact import open_path
from bntools.core.resident import Resident
from bntools.core.source import as_model, open_model

BITS = (2.6, 3.2, 3.5, 4.2, 5.2)
SIZES = (60_000_000, 70_000_000, 90_000_000)
GPTQ = ("--method", "gptq", "--dim", "oc", "--group-size", "128", "--bits", "3")
PREFIXES = 5  # of the embedded model


def bntools(*words: object) -> tuple[str, float]:
    """Standard output of a command, and its CPU time."""
    before = os.times()
    command = [sys.executable, "-m", "bntools", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return done.stdout, spent


def bits_at(path: Path, size: int) -> float:
    with open_path(path, size) as source:
        model = as_model(source, str(path))
        return model.bits_per_weight(model.linears)


def size_of(path: Path, bits: float) -> int | None:
    """Bytes of the prefix whose linear weights take so many bits; None where no prefix does."""
    with open_path(path) as source:
        low, high = source.header.base_bytes, source.nbytes
    if not bits_at(path, low) <= bits <= bits_at(path, high):
        return None
    while high - low > 20_000:
        middle = (low + high) // 2
        low, high = (middle, high) if bits_at(path, middle) < bits else (low, middle)
    return low


def evaluate(name: str, model: str, tokens: int, *words: object) -> dict[str, float]:
    """Measure a file or a prefix, and print its row."""
    report = json.loads(bntools("eval", *words, "--against", model, "--tokens", tokens)[0])
    row = {"megabytes": report["bytes"] / 1e6, "kl": report["kl"]["mean"], "se": report["kl"]["se"]}
    print(
        f"{name:28} {report['bits_per_weight']['linear']:6.3f} {row['megabytes']:8.2f} {row['kl']:9.5f} "
        f"±{row['se']:.5f} {report['perplexity']:8.2f} {100 * report['top1']:6.1f}", flush=True,
    )  # fmt: skip
    return row


def load_seconds(path: Path, size: int) -> tuple[float, float]:
    """CPU time and time of making every weight of a prefix, in one process, the compiled loops warm."""
    import torch

    for _ in range(2):
        model = open_model(str(path), size)
        began, cpu = time.monotonic(), time.process_time()
        for name in model.entries:
            model.tensor(name, torch.bfloat16)
    return time.process_time() - cpu, time.monotonic() - began


def resize_seconds(path: Path, base: int, whole: int) -> list[float]:
    """Time of a step of 10 MB, or a tenth of a small file, up and down again, after one that warms the loops."""
    step = min(10_000_000, (whole - base) // 10)
    held = Resident(path, (base + whole) // 2)
    sizes = [held.nbytes + step, held.nbytes, held.nbytes + step, held.nbytes]
    return [held.resize(size).seconds for size in sizes][2:]


def draw(rows: dict[str, list[dict[str, float]]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for (label, found), marker, colour in zip(rows.items(), "os^", ("0.0", "0.4", "0.6"), strict=False):
        found = sorted(found, key=lambda row: row["megabytes"])
        axes.plot(
            [r["megabytes"] for r in found],
            [r["kl"] for r in found],
            marker=marker,
            color=colour,
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlabel="file (MB)", ylabel="KL from the original (nats/token)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="default:")
    parser.add_argument("--work", help="a folder that keeps the stack and what it is made from")
    parser.add_argument("--plot")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--beside", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.work or scratch)
        path = folder / "stack.safetensors"
        if not path.exists():
            _, spent = bntools("stack-compress", given.model, "-q", "-o", path, "--work", folder / "units")
            print(f"made in {spent:.0f} s of CPU")
        measure(given, folder, path)


def measure(given: argparse.Namespace, folder: Path, path: Path) -> None:
    with open_path(path) as source:
        base, whole = source.header.base_bytes, source.nbytes
    print(
        f"{base:,} to {whole:,} bytes; loading all of it takes %.2f s of CPU, %.2f s"
        % load_seconds(path, whole)
    )
    up, down = resize_seconds(path, base, whole)
    print(f"a step of 10 MB, or a tenth of the blocks: {up:.3f} s up, {down:.3f} s down")
    print(f"{'':28} {'bits':>6} {'MB':>8} {'KL':>9} {'':8} {'ppl':>8} {'top-1':>6}")
    rows: dict[str, list[dict[str, float]]] = {"one stack": [], "made for the size": [], "GPTQ": []}
    prefixes = {f"stack, {bits} bits": size for bits in BITS if (size := size_of(path, bits))}
    prefixes |= {f"stack, {size / 1e6:.0f} MB": size for size in SIZES if base <= size <= whole}
    if given.model == "default:":
        prefixes = {f"stack, {at}": base + (whole - base) * at // (PREFIXES - 1) for at in range(PREFIXES)}
    for name, size in prefixes.items():
        rows["one stack"].append(evaluate(name, given.model, given.tokens, path, "--budget", size))
    beside = given.beside.split(",")
    budgets = [f"{bits}" for bits in BITS if "bits" in beside] + [f"{s}B" for s in SIZES if "sizes" in beside]
    for budget in budgets:
        work = folder / ("bytes" if budget.endswith("B") else "bits")
        made = folder / "fixed.safetensors"
        bntools(
            "quantize", given.model, "--code", "entropy", "--budget", budget, "-qfo", made, "--work", work
        )
        rows["made for the size"].append(evaluate(f"entropy, {budget}", given.model, given.tokens, made))
    if "gptq" in beside:
        made = folder / "fixed.safetensors"
        bntools("quantize", given.model, *GPTQ, "-qfo", made)
        rows["GPTQ"].append(evaluate("GPTQ, 3 bits, groups of 128", given.model, given.tokens, made))
    if given.plot:
        draw({label: found for label, found in rows.items() if found}, given.plot)


if __name__ == "__main__":
    main()
