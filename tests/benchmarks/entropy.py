"""Speed of the entropy code beside memcpy: million weights a second, and nanoseconds a weight of the search.

Best of some runs; encoding and the search on one thread, by its processor time, decoding also on two, by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from bntools.core.packing import entropy
from bntools.core.packing.entropy import Counter, Decoder, EntropyCoded
from bntools.kernels.entropy import dependent_trellis

ROWS, COLS = 1536, 576
CLASS = 30  # of every weight: a mean level of 2.8, as at about 3.6 bits
NONE = np.zeros((0, 0), np.float32)


def best(
    call: Callable[[], object], clock: Callable[[], float] = time.perf_counter, repeats: int = 7
) -> float:
    """Seconds of the fastest of `repeats` runs after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = clock()
        call()
        seconds.append(clock() - start)
    return min(seconds)


def targets(is_trellis: bool) -> np.ndarray:
    """Gaussian weights [cols, rows] in (half) steps."""
    sigma = 1.25 * 2 ** ((CLASS - 24) / 4) / (dependent_trellis.HALF_STEP if is_trellis else 1)
    return (np.random.default_rng(0).standard_normal((COLS, ROWS)) * sigma).astype(np.float32)


def search(source: np.ndarray, is_trellis: bool, feedback: np.ndarray) -> np.ndarray:
    """Levels by the quantizer's own run of 64 columns."""
    cols, rows = source.shape
    levels, ones = np.empty(source.shape, np.int16), np.ones(max(rows, cols), np.float32)
    work, factor = source.copy(), np.eye(64, dtype=np.float32)
    for at in range(0, cols, 64):
        part = slice(at, at + 64)
        dependent_trellis.columns(
            work[part], factor, ones[:rows], ones[:64], np.ones((64, rows), np.float32), ones[:rows], feedback,
            is_trellis, levels[part],
        )  # fmt: skip
    return levels


def coded(levels: np.ndarray) -> EntropyCoded:
    zero, row = np.zeros(COLS, np.int16), np.zeros(ROWS, np.int16)
    return EntropyCoded(levels, row, zero, row + np.int16(CLASS), zero)


def code_rates(is_trellis: bool) -> list[float]:
    """Bits a weight; million weights a second: encoded, decoded to levels on 1 and 2 threads, to float16 on both."""
    matrix = coded(search(targets(is_trellis), is_trellis, NONE))
    spec, counter = entropy.spec((ROWS, COLS), "F16", False, 8), Counter(is_trellis)
    counter.add(matrix)
    tables = counter.tables(np.ones(64, np.float32))
    stream, decoder = entropy.encode(matrix, spec, tables), Decoder(entropy.dump_tables(tables))
    seconds = [best(lambda: entropy.encode(matrix, spec, tables), time.thread_time)]
    works = (
        lambda: decoder.coded("w", spec, stream),
        lambda: decoder.dense("w", spec, stream, torch.float16),
    )
    for work in works:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seconds.append(best(work, time.thread_time if threads == 1 else time.perf_counter))
    torch.set_num_threads(1)
    return [8 * len(stream) / (ROWS * COLS), *(ROWS * COLS / s / 1e6 for s in seconds)]


def search_times() -> list[tuple[str, float]]:
    """Nanoseconds a weight: without feedback between rows and with it."""
    feedback = (np.triu(np.random.default_rng(1).standard_normal((ROWS, ROWS)), 1) / ROWS).astype(np.float32)
    found = []
    for name, is_trellis, given in (
        ("rounding", False, NONE), ("rounding, feedback", False, feedback), ("trellis", True, NONE),
        ("trellis, feedback", True, feedback),
    ):  # fmt: skip
        source = targets(is_trellis)[:64]
        call = lambda s=source, t=is_trellis, g=given: search(s, t, g)  # noqa: E731
        found.append((name, best(call, time.thread_time, 3) / source.size * 1e9))
    return found


def main() -> None:
    torch.set_num_threads(1)
    print(f"levels [{ROWS}, {COLS}], million weights a second")
    print(f"{'code':>10}{'bits':>8}{'encode':>9}{'levels':>9}{'2 thr.':>9}{'float16':>9}{'2 thr.':>9}")
    half = torch.zeros(COLS, ROWS, dtype=torch.float16)
    copy = half.numel() / best(half.clone, time.thread_time) / 1e6
    print(f"{'memcpy':>10}{16:>8.2f}{copy:>9.0f}{copy:>9.0f}{'':>9}{copy:>9.0f}")
    for name, is_trellis in (("scalar", False), ("trellis", True)):
        bits, *rates = code_rates(is_trellis)
        print(f"{name:>10}{bits:>8.2f}" + "".join(f"{rate:>9.0f}" for rate in rates))
    print("\nsearch for the levels, ns a weight, one thread")
    for name, nanoseconds in search_times():
        print(f"{name:>20}{nanoseconds:>8.1f}")


if __name__ == "__main__":
    main()
