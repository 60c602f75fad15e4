"""Sentence BLEU of token ids beside NLTK, sacrebleu and torchmetrics: seconds, times NLTK, extra memory.

`--quick`: small shapes only. `--threads N`: default torch's. `--cpu`: CPU time, for a busy machine (one thread).
Ours is the best of 9 runs after one to warm up, NLTK of 2, the others one run. Memory is the growth of the
peak resident set in a fork that runs ours once (some 10 MB of it are torch's first operations).
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import time
import warnings
from collections.abc import Callable

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


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Time on `CLOCK`, the best of some runs."""
    best = float("inf")
    for _ in range(repeats):
        start = CLOCK()
        call()
        best = min(best, CLOCK() - start)
    return best


def memory(data: Batch) -> float:
    """MB by which one call raises the peak of a fresh fork (which starts from what is resident)."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()  # noqa: SIM115
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ours(data)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(write, str((after - max(before, peak)) / 1e6).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return float(pipe.read())


def compare(shape: tuple[int, int, int, int]) -> str:
    """One line of the table."""
    data = batch(*shape)
    hyps, refs = lists(data)
    words = [" ".join(map(str, h)) for h in hyps]
    other_words = [[" ".join(map(str, r)) for r in row] for row in refs]
    grown = memory(data)
    got = ours(data)
    fast = seconds(lambda: ours(data), 9)
    few = min(shape[0], 8)
    torchmetrics(words[:2], other_words[:2])
    slow = seconds(lambda: nltk(hyps, refs), 2)
    sacre = seconds(lambda: sacrebleu(words, other_words))
    metrics = seconds(lambda: torchmetrics(words[:few], other_words[:few])) * shape[0] / few
    torch.testing.assert_close(got, torch.tensor(nltk(hyps, refs), dtype=torch.float64), rtol=0, atol=1e-12)
    times = f"{slow:>10.4f}{sacre:>11.4f}{metrics:>14.3f}{fast:>10.5f}"
    return "{:>6}{:>7}{:>8}{:>6}".format(*shape) + times + f"{slow / fast:>10.1f}{grown:>9.1f}"


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    CLOCK = time.process_time if options.cpu else time.perf_counter
    warnings.simplefilter("ignore")
    print(f"{torch.get_num_threads()} threads; seconds; torchmetrics from 8 rows")
    names = ("NLTK", "sacrebleu", "torchmetrics", "ours", "NLTK/ours", "MB")
    print(
        f"{'rows':>6}{'length':>7}{'vocab':>8}{'refs':>6}"
        + "{:>10}{:>11}{:>14}{:>10}{:>10}{:>9}".format(*names)
    )
    lengths = (128,) if options.quick else (128, 1024)
    for shape in itertools.product((32, 256), lengths, (32_000, 128_000), (1,) if options.quick else (1, 4)):
        print(compare(shape), flush=True)


if __name__ == "__main__":
    main()
