"""One vector times packed weights beside the dense float32 product, and dequantization; one thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bntools.kernels.grouped.bits import pack
from bntools.kernels.grouped.operations import Packed, dequantize, dequantize_reference, matvec

SHAPES = ((1536, 576), (4096, 4096))
GROUP = 128
FLUSH = torch.zeros(1 << 25)
"""128 MB: writing it empties the caches, as the other layers of a model do between two uses of a weight."""


def best(call: Callable[[], object], cold: bool, repeats: int = 15) -> float:
    """Seconds: the best of `repeats` runs after one to warm up; cold: each after the caches were emptied."""
    call()
    seconds = []
    for _ in range(repeats):
        if cold:
            FLUSH.add_(1)
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def random_packed(out: int, inputs: int, bits: int, transposed: bool) -> Packed:
    rows, cols = (inputs, out) if transposed else (out, inputs)
    groups = -(-cols // GROUP)
    codes = torch.randint(0, 1 << bits, (rows, cols), dtype=torch.uint8)
    zeros = torch.randint(0, 1 << bits, (rows, groups), dtype=torch.uint8)
    scales = torch.rand(rows, groups).half() + 0.1
    return Packed(pack(codes, bits), scales, pack(zeros, bits), bits, GROUP, cols, transposed)


def main() -> None:
    torch.set_num_threads(1)
    print(f"W [out, in], groups of {GROUP}, float16 scales, packed zeros; dense: float32 x @ W.T; best of 15")
    print(
        "cold: caches emptied before; dequantize: of float32 written, beside filling fresh memory (dense row)"
    )
    heads = ("cold ms", "of dense", "warm ms", "of dense", "dequantize", "reference")
    print(f"{'':>24}" + "".join(f"{head:>12}" for head in heads))
    for out, inputs in SHAPES:
        w, x = torch.randn(out, inputs), torch.randn(1, inputs)
        dense = [best(lambda w=w, x=x: x @ w.T, cold) for cold in (True, False)]
        name = f"[{out}, {inputs}]"
        fill = w.nbytes / best(lambda w=w: torch.empty(w.shape).fill_(0), False) / 1e9
        columns = "".join(f"{t * 1e3:>12.3f}{1:>12.2f}" for t in dense)
        print(f"{name + ' dense':>24}{columns}{fill:>7.2f} GB/s")
        for bits in (3, 4):
            for transposed in (False, True):
                p = random_packed(out, inputs, bits, transposed)
                times = [best(lambda p=p, x=x: matvec(p, x), cold) for cold in (True, False)]
                fast = best(lambda p=p: dequantize(p), False)
                slow = best(lambda p=p: dequantize_reference(p), False, 1)
                label = f"{bits} bits {'per-IC' if transposed else 'per-OC'}"
                columns = "".join(
                    f"{t * 1e3:>12.3f}{t / d:>12.2f}" for t, d in zip(times, dense, strict=True)
                )
                print(
                    f"{label:>24}{columns}"
                    + "".join(f"{w.nbytes / s / 1e9:>7.2f} GB/s" for s in (fast, slow))
                )


if __name__ == "__main__":
    main()
