"""Sentence BLEU of token ids beside NLTK, sacrebleu, torchmetrics and dense counting: seconds, ratios, memory.

`--quick`: one vocabulary, one reference. `--threads N`: default torch's. `--cpu`: CPU time, for a busy machine (one
thread). `--lines`: JSON lines a second through the command. `--svg FILE`: the picture. The dense column
is the counting of TensorBLEU (arXiv 2510.05485) done again in torch, up to 32 x 1024 or 256 x 128 (its tables
beyond take gigabytes); the floor is two SIMD sorts of the tokens and six passes over them, in numpy.
Ours and the floor are the best of 9 runs after one to warm up, NLTK of 2, the others one run. Memory is the growth of
the peak resident set over one call of ours.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sacrebleu.metrics.bleu import BLEU
from torchmetrics.functional.text import bleu_score

from bntools.tools.bleu_gpu.scores import bleu_scores
from bntools.tools.bleu_gpu.stats import bleu_stats

CLOCK = time.perf_counter
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def batch(rows: int, length: int, vocabulary: int, refs: int, seed: int = 0) -> Batch:
    """Zipf ids; references are the hypothesis with 45 % of the ids redrawn and its halves swapped."""
    rng = np.random.default_rng(seed)
    odds = 1 / np.arange(1, vocabulary + 1)
    odds /= odds.sum()
    names = rng.permutation(vocabulary)
    hyp = names[rng.choice(vocabulary, (rows, length), p=odds)]
    noise = names[rng.choice(vocabulary, (rows, refs, length), p=odds)]
    others = np.where(rng.random(noise.shape) < 0.45, noise, np.roll(hyp, length // 2, 1)[:, None])
    hyp_len = rng.integers(length * 7 // 10, length + 1, rows)
    ref_len = rng.integers(length * 7 // 10, length + 1, (rows, refs))
    return tuple(torch.from_numpy(x) for x in (hyp, others, hyp_len, ref_len))  # type: ignore[return-value]


def lists(data: Batch) -> tuple[list[list[int]], list[list[list[int]]]]:
    """The batch as ragged lists."""
    hyp, refs, hyp_len, ref_len = (x.tolist() for x in data)
    ragged = [[r[:n] for r, n in zip(row, ns, strict=True)] for row, ns in zip(refs, ref_len, strict=True)]
    return [h[:n] for h, n in zip(hyp, hyp_len, strict=True)], ragged


def ours(data: Batch) -> torch.Tensor:
    """Scores of a batch of tensors."""
    hyp, refs, hyp_len, ref_len = data
    return bleu_scores(bleu_stats(hyp, refs, hyp_len, ref_len), smoothing="method1")


def nltk(hyps: list[list[int]], refs: list[list[list[int]]]) -> list[float]:
    """The loop people write."""
    smooth = SmoothingFunction().method1
    return [sentence_bleu(r, h, smoothing_function=smooth) for h, r in zip(hyps, refs, strict=True)]


def sacrebleu(hyps: list[str], refs: list[list[str]]) -> list[float]:
    """The same on ids written as words."""
    metric = BLEU(tokenize="none", effective_order=True)
    return [metric.sentence_score(h, r).score for h, r in zip(hyps, refs, strict=True)]


def torchmetrics(hyps: list[str], refs: list[list[str]]) -> list[torch.Tensor]:
    """The same."""
    return [bleu_score([h], [r]) for h, r in zip(hyps, refs, strict=True)]


def dense(data: Batch) -> torch.Tensor:
    """Clipped matches [B, 4] as the paper counts them: a dictionary of the batch, a dense table of rows by n-grams."""
    hyp, refs, hyp_len, ref_len = data
    (rows, length), count = hyp.shape, refs.shape[1]
    found = []
    for n in range(1, 5):
        windows = [hyp.unfold(1, n, 1), *(refs[:, r].unfold(1, n, 1) for r in range(count))]
        lengths = [hyp_len, *(ref_len[:, r] for r in range(count))]
        every = torch.cat([w.reshape(-1, n) for w in windows])
        names = torch.unique(every, dim=0, return_inverse=True)[1]
        size, tables = int(names.max()) + 1, []
        place = torch.arange(length - n + 1)
        for part, ends in zip(names.view(count + 1, rows, -1), lengths, strict=True):
            cell = (part + torch.arange(rows)[:, None] * size)[place + n <= ends[:, None]]
            tables.append(torch.bincount(cell, minlength=rows * size).view(rows, size))
        most = torch.stack(tables[1:]).amax(0)
        found.append(torch.minimum(tables[0], most).sum(1))
    return torch.stack(found, 1)


def floor(data: Batch) -> Callable[[], None]:
    """What an exact count by sorting cannot do without: two sorts and six passes of 8 bytes over all tokens.

    Into buffers that are kept, so that pages fresh from the system do not add to it.
    """
    hyp, refs, _, _ = data
    ids = np.concatenate([hyp.numpy(), refs.numpy().reshape(len(hyp), -1)], 1)
    narrow, wide, out = ids.astype(np.uint32), ids.astype(np.uint64), np.empty(ids.size, np.uint64)

    def work() -> None:
        for table in (narrow, wide):
            np.copyto(table, ids, casting="unsafe")
            table.sort(axis=1)
        flat = wide.reshape(-1)
        for start in range(0, len(flat), 1 << 15):  # in cache, as ours works
            part, into = flat[start : start + (1 << 15)], out[start : start + (1 << 15)]
            for _ in range(6):
                np.add(part, 1, out=into)

    return work


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Time on `CLOCK`, the best of some runs."""
    best = float("inf")
    for _ in range(repeats):
        start = CLOCK()
        call()
        best = min(best, CLOCK() - start)
    return best


def memory(data: Batch) -> float:
    """MB by which one call raises the peak resident set above what is resident before it."""
    ctypes.CDLL(None).malloc_trim(0)  # what is freed but still resident would hide the growth
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    ours(data)
    return (resident("VmHWM") - before) / 1e6


def resident(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name)) * 1024


def compare(shape: tuple[int, int, int, int]) -> dict[str, float]:
    """One line of the table; seconds, and MB for memory."""
    data = batch(*shape)
    hyps, refs = lists(data)
    words = [" ".join(map(str, h)) for h in hyps]
    other_words = [[" ".join(map(str, r)) for r in row] for row in refs]
    grown = memory(data)
    got = ours(data)
    few = min(shape[0], 8)
    torchmetrics(words[:2], other_words[:2])
    row = {
        "NLTK": seconds(lambda: nltk(hyps, refs), 2),
        "sacrebleu": seconds(lambda: sacrebleu(words, other_words)),
        "torchmetrics": seconds(lambda: torchmetrics(words[:few], other_words[:few])) * shape[0] / few,
        "dense": float("nan"),
        "floor": seconds(floor(data), 9),
        "ours": seconds(lambda: ours(data), 9),
        "MB": grown,
    }
    if shape[0] * shape[1] * shape[3] <= 1 << 15:
        row["dense"] = seconds(lambda: dense(data))
        stats = bleu_stats(*data)
        torch.testing.assert_close(dense(data), stats[:, 2:6].long(), rtol=0, atol=0)
    torch.testing.assert_close(got, torch.tensor(nltk(hyps, refs), dtype=torch.float64), rtol=0, atol=1e-12)
    return row


def show(shape: tuple[int, int, int, int], row: dict[str, float]) -> str:
    """The line as printed."""
    times = [row[name] for name in ("NLTK", "sacrebleu", "torchmetrics", "dense", "floor", "ours")]
    ratios = row["NLTK"] / row["ours"], row["dense"] / row["ours"], row["ours"] / row["floor"], row["MB"]
    return (
        "{:>5}{:>6}{:>8}{:>5}".format(*shape)
        + "".join(f"{x:>11.5f}" for x in times)
        + "".join(f"{x:>10.1f}" for x in ratios)
    )


def lines_a_second(count: int = 500_000) -> str:
    """Pairs a second through the command, start to end, a second run (compiled code is cached)."""
    import json
    import subprocess
    import sys
    import tempfile

    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for n in rng.integers(8, 20, (count, 2)):
            ids = [rng.integers(0, 32_000, k).tolist() for k in n]
            file.write(json.dumps({"hyp": ids[0], "refs": [ids[1]]}) + "\n")
        file.flush()
        command = [sys.executable, "-m", "bntools", "bleu-gpu", file.name, "--smoothing", "1", "-q"]
        walls, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            walls.append(time.perf_counter() - start)
            spent = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
            before = spent
    rate = f"{count / walls[-1]:,.0f} pairs/s of wall time, {count / cpu:,.0f} of CPU time"
    return f"{count:,} pairs of 8 to 19 ids: {rate}, start of the program and reading included"


def picture(path: str, shapes: list[tuple[int, int, int, int]], rows: list[dict[str, float]]) -> None:
    """Bars: how many times faster than the NLTK loop, log axis."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bleu"
    from matplotlib import pyplot

    names = ["dense", "torchmetrics", "NLTK", "sacrebleu", "ours"]
    shades = ["0.85", "0.7", "0.55", "0.4", "black"]
    figure, axes = pyplot.subplots(figsize=(7, 3))
    for i, (name, shade) in enumerate(zip(names, shades, strict=True)):
        times = [row["NLTK"] / row[name] for row in rows]
        axes.bar([x + (i - 2) * 0.16 for x in range(len(rows))], times, 0.15, color=shade, label=name)
    axes.set_yscale("log")
    axes.axhline(1, color="0.55", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [f"{b} x {n}" for b, n, _, _ in shapes])
    axes.set_xlabel("sentences x ids")
    axes.set_ylabel("times the speed of NLTK")
    axes.legend(ncols=5, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--svg")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    CLOCK = time.process_time if options.cpu else time.perf_counter
    warnings.simplefilter("ignore")
    ours(batch(2, 10, 100, 1))  # compiled once, then cached on disk
    clock = "of CPU time" if options.cpu else ""
    print(f"{torch.get_num_threads()} threads; seconds {clock}; torchmetrics from 8 rows")
    names = ("NLTK", "sacrebleu", "torchmetr.", "dense", "floor", "ours")
    ratios = ("NLTK/ours", "dense/o.", "o./floor", "MB")
    print(
        "{:>5}{:>6}{:>8}{:>5}".format("rows", "ids", "vocab", "refs")
        + "".join(f"{n:>11}" for n in names) + "".join(f"{n:>10}" for n in ratios)
    )  # fmt: skip
    vocabularies, references = ((32_000,), (1,)) if options.quick else ((32_000, 128_000), (1, 4))
    shapes = list(itertools.product((32, 256), (128, 1024), vocabularies, references))
    rows = []
    for shape in shapes:
        rows.append(compare(shape))
        print(show(shape, rows[-1]), flush=True)
    if options.svg:
        few = [i for i, shape in enumerate(shapes) if shape[2:] == (32_000, 1)]
        picture(options.svg, [shapes[i] for i in few], [rows[i] for i in few])
    if options.lines:
        print(lines_a_second())


if __name__ == "__main__":
    main()
