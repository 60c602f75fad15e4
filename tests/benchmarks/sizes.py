"""Divergence against size: GPTQ with groups of 128 and the entropy code at several budgets, one table, one picture.

usage: sizes.py MODEL_DIR [--work DIR] [--plot FILE.svg]

MODEL_DIR is best the dithered SmolLM2 that `dithered.py` makes: the original lies on a 4-bit grid. Without it the
embedded model is used. Every row is written to disk and read back; bits count everything but norms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BITS = ("2.0", "2.6", "3.2", "4.2")
SIZES = ("42MB", "48MB", "55MB", "60MB")
FIXED = ("--method", "gptq", "--dim", "oc", "--group-size", "128", "--bits")


def bntools(*words: object) -> str:
    command = [sys.executable, "-m", "bntools", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(model: str, folder: Path, name: str, *words: object) -> dict[str, object]:
    """Make one file, evaluate it, and print its row."""
    path, began = folder / "q.safetensors", time.monotonic()
    bntools("quantize", model, *words, "-q", "-f", "-o", path)
    seconds = time.monotonic() - began
    report = json.loads(bntools("eval", path, "--against", model))
    bits, kl = report["bits_per_weight"], report["kl"]
    row = {"name": name, "linear": bits["linear"], "megabytes": report["bytes"] / 1e6, "kl": kl["mean"],
           "se": kl["se"], "perplexity": report["perplexity"], "top1": report["top1"], "seconds": seconds}  # fmt: skip
    print(
        f"{name:24} {row['linear']:6.3f} {row['megabytes']:8.1f} {row['kl']:8.4f} ±{row['se']:.4f} "
        f"{row['perplexity']:8.2f} {100 * row['top1']:6.1f} {seconds:6.0f}", flush=True,
    )  # fmt: skip
    return row


def draw(rows: list[dict[str, object]], path: str) -> None:
    """KL against the size of the whole file, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for start, marker, colour in (("GPTQ", "s", "0.6"), ("entropy", "o", "0.0")):
        chosen = sorted((r["megabytes"], r["kl"]) for r in rows if str(r["name"]).startswith(start))
        axes.plot(*zip(*chosen, strict=True), marker=marker, color=colour, label=start)
    axes.set(xscale="log", yscale="log", xlabel="file (MB)", ylabel="KL from the original (nats/token)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="default:")
    parser.add_argument("--work")
    parser.add_argument("--plot")
    parser.add_argument("--only", help="names of rows, with commas")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else None
    print(f"{'':24} {'bits':>6} {'MB':>8} {'KL':>8} {'':7} {'ppl':>8} {'top-1':>6} {'s':>6}")
    with tempfile.TemporaryDirectory() as scratch:
        folder, work = Path(scratch), Path(given.work or scratch) / "metrics"
        jobs = [(f"GPTQ {bits} bits", (*FIXED, bits)) for bits in (3, 4)]
        code = ("--code", "entropy", "--budget")
        jobs += [(f"entropy {bits} bits", (*code, bits, "--work", f"{work}-bits")) for bits in BITS]
        if given.model != "default:":
            jobs += [(f"entropy {size}", (*code, size, "--work", f"{work}-bytes")) for size in SIZES]
        rows = [
            measure(given.model, folder, name, *words)
            for name, words in jobs
            if wanted is None or any(name.endswith(end) for end in wanted)
        ]
    if given.plot:
        draw(rows, given.plot)


if __name__ == "__main__":
    main()
