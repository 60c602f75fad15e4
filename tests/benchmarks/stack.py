"""One stack at many sizes beside BitStack and files made for each size: divergence, times, one picture.

usage: stack.py [MODEL_DIR] [--work DIR] [--plot FILE.svg] [--tokens N] [--only PIECES] [--calib FILE]
                [--calib-tokens N] [--text FILE] [--window N] [--prefixes N]

MODEL_DIR is best the dithered SmolLM2 that `dithered.py` makes: the original lies on a 4-bit grid. Without it the
embedded model is used, at a few sizes of its own. PIECES of the table, by commas, all by default but bits and sizes:

    gptq        GPTQ with groups of 128 at 3 bits; x G: divergence relative to it, where it was measured before
    load        time to load a stack of planes, and of a step of a resident one
    resident    bytes in memory and time of a token, packed and dense
    planes      prefixes of it of so many bytes
    linears     the same with the embedding as it is, prefixes whose linear weights take so many bits
    bitstack    prefixes of a stack of signs and low-rank sizes, at the same bits
    paper       the same as the paper's authors have it (their blocks, in the order by the loss a byte)
    bits,sizes  `quantize --code entropy` made for each row of bits or bytes

`stack_order.py` compares orders of the blocks. With --work stacks and rows are kept there, so pieces may run one by
one; the picture is of all that were. Seconds are CPU time of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bntools.core.artifact.reader import open_path
from bntools.core.model.open import as_model, open_model
from bntools.core.resident.resize import Resident

BITS = (2.6, 3.2, 3.5, 4.2, 5.2)
SIZES = (60_000_000, 70_000_000, 90_000_000)
GPTQ = ("--method", "gptq", "--dim", "oc", "--group-size", "128", "--bits", "3")
PIECES = ("gptq", "load", "resident", "planes", "linears", "bitstack", "paper", "bits", "sizes")
STACKS = {
    "planes": ("one stack", ()),
    "linears": ("one stack, linears", ("--no-embedding",)),
    "bitstack": ("BitStack, ours", ("--codec", "bitstack")),
    "paper": ("BitStack, paper", ("--codec", "bitstack", "--paper")),
}


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


def evaluate(given: argparse.Namespace, name: str, path: Path, *words: object) -> dict[str, float]:
    """Measure a file or a prefix, and print its row."""
    text = ("--text", given.text) if given.text else ()
    text += ("--window", given.window) if given.window else ()
    told = bntools("eval", path, *words, *text, "--against", given.model, "--tokens", given.tokens)[0]
    report = json.loads(told)
    row = {"megabytes": report["bytes"] / 1e6, "bits": report["bits_per_weight"]["linear"],
           "kl": report["kl"]["mean"], "se": report["kl"]["se"]}  # fmt: skip
    print(
        f"{name:28} {row['bits']:6.3f} {row['megabytes']:8.2f} {row['kl']:9.5f} "
        f"±{row['se']:.5f} {row['kl'] / (given.g or math.nan):6.3f} {report['perplexity']:8.2f} "
        f"{100 * report['top1']:6.1f}", flush=True,
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


def cold_seconds(path: Path, size: int) -> tuple[float, float]:
    """CPU time and time from the start of a process to a network at a budget, imports and all."""
    program = (
        "import os, time\nfrom bntools.core.resident.resize import Resident\n"
        f"Resident({str(path)!r}, {size})\nprint(sum(os.times()[:2]), time.monotonic())"
    )
    began = time.monotonic()  # of the same clock in every process
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    spent, ready = map(float, done.stdout.split())
    return spent, ready - began


def resize_seconds(path: Path, base: int, whole: int) -> list[float]:
    """Time of a step of 10 MB, or a tenth of a small file, up and down again, after one that warms the loops."""
    step = min(10_000_000, (whole - base) // 10)
    held = Resident(path, (base + whole) // 2)
    sizes = [held.nbytes + step, held.nbytes, held.nbytes + step, held.nbytes]
    return [held.resize(size).seconds for size in sizes][2:]


def token_seconds(held: Resident, count: int = 10) -> float:
    """CPU time of a token, one at a time behind a few others, the median; its network is warm."""
    import torch

    ids, spent = torch.arange(100, 108)[None] % held.network.config.vocab_size, []
    with torch.no_grad():
        past = held.network(ids, use_cache=True).past_key_values
        for _ in range(count + 2):
            began = time.process_time()
            held.network(ids[:, -1:], past_key_values=past, use_cache=True)
            spent.append(time.process_time() - began)
    return sorted(spent[2:])[count // 2]


def residency(path: Path, base: int, whole: int) -> None:
    """Bytes in memory, CPU time of a token, and of steps up and down again, packed and dense."""
    import torch

    step = min(10_000_000, (whole - base) // 10)
    for size in sorted({max(base, min(size, whole - step)) for size in (SIZES[0], SIZES[-1])}):
        for packed, dtype in ((True, torch.float32), (False, torch.float32), (False, torch.bfloat16)):
            held = Resident(path, size, dtype, packed)
            token, began = token_seconds(held), time.process_time()
            held.resize(size + step)
            held.resize(size)
            moved = (time.process_time() - began) / 2
            kind = "packed" if packed else str(dtype).removeprefix("torch.")
            print(
                f"{size / 1e6:.1f} MB {kind:9} {held.memory / 1e6:7.1f} MB in memory, {1e3 * token:.1f} ms a token, "
                f"{moved:.3f} s a step", flush=True,
            )  # fmt: skip


def draw(rows: dict[str, list[dict[str, float]]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    colours = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#CC79A7", "#000000")
    for (label, found), marker, colour in zip(rows.items(), "osd^vx", colours, strict=False):
        found = sorted(found, key=lambda row: row["megabytes"])
        sizes, lost = ([row[key] for row in found] for key in ("megabytes", "kl"))
        axes.plot(sizes, lost, marker=marker, color=colour, label=label)
    axes.set(yscale="log", xlabel="file (MB)", ylabel="KL from the original (nats/token)")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="default:")
    parser.add_argument(
        "--work", help="a folder that keeps the stacks, what they are made from, and the rows"
    )
    parser.add_argument("--plot")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--text", help="to measure on, where it is not the default one")
    parser.add_argument("--window", type=int, help="tokens of a window of it")
    parser.add_argument("--calib", default="default")
    parser.add_argument("--calib-tokens", type=int, default=32768)
    parser.add_argument("--prefixes", type=int, default=5, help="of the embedded model")
    parser.add_argument("--only", default="gptq,load,resident,planes,linears,bitstack,paper")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if wrong := set(given.only) - set(PIECES):
        parser.error(f"no piece {', '.join(wrong)}; there are {', '.join(PIECES)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.work or scratch)
        folder.mkdir(exist_ok=True)
        kept = folder / "rows.json"
        rows = json.loads(kept.read_text()) if kept.exists() else {}
        print(f"{'':28} {'bits':>6} {'MB':>8} {'KL':>9} {'':8} {'x G':>6} {'ppl':>8} {'top-1':>6}")
        for piece in given.only:
            given.g = rows["GPTQ"][0]["kl"] if "GPTQ" in rows else None
            rows |= measure(given, folder, piece)
            kept.write_text(json.dumps(rows))
        if given.plot:
            draw(rows, given.plot)


def stack(given: argparse.Namespace, folder: Path, piece: str) -> Path:
    """The stack of a codec, made where it is not there."""
    path = folder / f"{piece}.safetensors"
    if not path.exists():
        text = ("--calib", given.calib, "--calib-tokens", given.calib_tokens)
        words = (*STACKS[piece][1], *text, "--curve", 0, "-qo", path, "--work", folder / f"{piece} units")
        print(
            f"{piece}: made in {bntools('stack-compress', given.model, *words)[1]:.0f} s of CPU", flush=True
        )
    return path


def measure(given: argparse.Namespace, folder: Path, piece: str) -> dict[str, list[dict[str, float]]]:
    """Print a piece of the table; its rows by label."""
    if piece in ("load", "resident"):
        path = stack(given, folder, "planes")
        with open_path(path) as source:
            (times if piece == "load" else residency)(path, source.header.base_bytes, source.nbytes)
        return {}
    if piece in STACKS:
        return {STACKS[piece][0]: prefixes(given, stack(given, folder, piece), piece)}
    made, text = folder / "fixed.safetensors", ("--calib", given.calib, "--calib-tokens", given.calib_tokens)
    if piece == "gptq":
        bntools("quantize", given.model, *GPTQ, *text, "-qfo", made)
        return {"GPTQ": [evaluate(given, "GPTQ, 3 bits, groups of 128", made)]}
    found = []
    for budget in [f"{bits}" for bits in BITS] if piece == "bits" else [f"{size}B" for size in SIZES]:
        words = (
            "--code",
            "entropy",
            "--budget",
            budget,
            *text,
            "-qfo",
            made,
            "--work",
            folder / f"{piece} units",
        )
        bntools("quantize", given.model, *words)
        found.append(evaluate(given, f"entropy, {budget}", made))
    return {f"made for the {piece}": found}


def times(path: Path, base: int, whole: int) -> None:
    for size in (min(SIZES[-1], whole), whole):
        spent, took = load_seconds(path, size)
        cold, start = cold_seconds(path, size)
        print(
            f"{size:,} of {whole:,} bytes: weights in {spent:.2f} s of CPU, {took:.2f} s; the network of a new "
            f"process in {cold:.2f} s of CPU, {start:.2f} s", flush=True,
        )  # fmt: skip
    up, down = resize_seconds(path, base, whole)
    print(f"a step of 10 MB, or a tenth of the blocks: {up:.3f} s up, {down:.3f} s down", flush=True)


def prefixes(given: argparse.Namespace, path: Path, piece: str) -> list[dict[str, float]]:
    with open_path(path) as source:
        base, whole = source.header.base_bytes, source.nbytes
    bits, sizes = () if piece == "planes" else BITS, () if piece == "linears" else SIZES
    wanted = {f"{piece}, {one} bits": size for one in bits if (size := size_of(path, one))}
    wanted |= {f"{piece}, {size / 1e6:.0f} MB": size for size in sizes if base <= size <= whole}
    if given.model == "default:":
        last = given.prefixes - 1
        wanted = {f"{piece}, {at}": base + (whole - base) * at // last for at in range(given.prefixes)}
    return [evaluate(given, name, path, "--budget", size) for name, size in wanted.items()]


if __name__ == "__main__":
    main()
