"""Pack and unpack speed on one core, beside memcpy: GB/s of codes (one code is one byte), best of 15 runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bntools.kernels.grouped.bits import pack, pack_reference, unpack, unpack_reference

ROWS, COLS = 4096, 4096


def rate(call: Callable[[], object], codes: int, repeats: int = 15) -> float:
    """GB/s of codes: the best of `repeats` runs after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return codes / min(seconds) / 1e9


def main() -> None:
    torch.set_num_threads(1)
    codes = torch.randint(0, 256, (ROWS, COLS), dtype=torch.uint8)
    slow_rows = ROWS // 64
    print(f"codes [{ROWS}, {COLS}] uint8, one thread, GB/s of codes")
    print(f"{'bits':>8}{'pack':>10}{'unpack':>10}{'pack ref':>12}{'unpack ref':>12}")
    copy = rate(codes.clone, codes.numel())
    print(f"{'memcpy':>8}{copy:>10.2f}{copy:>10.2f}")
    for bits in range(1, 9):
        few = codes >> (8 - bits)
        packed = pack(few, bits)
        assert torch.equal(unpack(packed, bits, COLS), few)
        slow, slow_packed = few[:slow_rows], packed[:slow_rows]
        columns = (
            rate(lambda few=few, bits=bits: pack(few, bits), few.numel()),
            rate(lambda packed=packed, bits=bits: unpack(packed, bits, COLS), few.numel()),
        )
        slow_columns = (
            rate(lambda slow=slow, bits=bits: pack_reference(slow, bits), slow.numel(), 3),
            rate(lambda p=slow_packed, bits=bits: unpack_reference(p, bits, COLS), slow.numel(), 3),
        )
        print(
            f"{bits:>8}"
            + "".join(f"{x:>10.2f}" for x in columns)
            + "".join(f"{x:>12.3f}" for x in slow_columns)
        )


if __name__ == "__main__":
    main()
