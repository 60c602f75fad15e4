"""Read mutated files of every kind: what raises a raw exception, takes 5 seconds of CPU or swells is printed, by kind.

usage: python tests/benchmarks/fuzz.py [INPUTS] [FIRST_SEED] [TARGET ...]

Memory is the growth of the peak of this process while it reads one input: over three times the file plus 64 MB is a
fault. Each fault is shown once, with its seed: `one NAME SEED` in place of numbers reads that input alone.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import fuzz, fuzz_targets

SECONDS, ROOM = 5, 64 << 20
SHOWN = re.compile(r"'[^']*'|\d+")


class TooLong(BaseException):
    """The alarm; no reader may catch it."""


def _ring(number: int, frame: object) -> None:
    raise TooLong


def peak() -> int:
    """Largest resident size since the last `reset`, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) << 10  # pyright: ignore[reportOptionalSubscript]


def reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def one(name: str, path: Path, data: bytes) -> str:
    """What became of one input, its time and memory watched."""
    path.write_bytes(data)
    before = peak()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of CPU: the machine may be loaded
    try:
        outcome = fuzz_targets.attempt(name, path)
    except TooLong as error:
        outcome = f"hang at {fuzz_targets._where(error)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    after = peak()
    if after > before:
        reset()
        if after - before > 3 * len(data) + ROOM:
            outcome = f"memory {(after - before) >> 20} MB, {outcome}"
    return outcome


def main() -> None:
    words = sys.argv[1:]
    warnings.simplefilter("ignore")  # of numbers that overflow: a damaged file may hold them
    signal.signal(signal.SIGPROF, _ring)
    if words[:1] == ["one"]:
        _again(words[1], int(words[2]))
        return
    total, first = int(words[0]) if words else 1_000_000, int(words[1]) if words[1:] else 0
    names = words[2:] or list(fuzz_targets.TARGETS)
    spent: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    seen: set[str] = set()
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: _folder(Path(folder), name) for name in names}
        for name in names:  # what is compiled or imported on first use is not what is measured
            path = paths[name]
            path.write_bytes((fuzz_targets.SAMPLES / fuzz_targets.TARGETS[name].file).read_bytes())
            print(f"{name:16} as it is: {fuzz_targets.attempt(name, path)}", flush=True)
        reset()
        for number in range(total):
            name = names[number % len(names)]
            target = fuzz_targets.TARGETS[name]
            data = (fuzz_targets.SAMPLES / target.file).read_bytes()
            begun = time.process_time()
            outcome = one(name, paths[name], fuzz.mutated(data, target.ways, first + number))
            spent[name] += time.process_time() - begun
            short = outcome if outcome in ("read", "refused") else "fault"
            counts[name][short] += 1
            kind = f"{name}: {SHOWN.sub('*', outcome)}"
            if short == "fault" and kind not in seen:
                seen.add(kind)
                print(f"{name} {first + number}: {outcome}", flush=True)
            if number % 2000 == 1999:
                reset()
                print(f"{number + 1:,} inputs", file=sys.stderr, flush=True)
    _show(counts, spent, f"{len(seen)} kinds, {time.time() - started:.0f} s")


def _show(counts: dict[str, Counter[str]], spent: Counter[str], end: str) -> None:
    for name in counts:
        each = 1000 * spent[name] / max(counts[name].total(), 1)
        print(
            f"{name:16} {each:5.1f} ms  " + "  ".join(f"{k} {v:,}" for k, v in sorted(counts[name].items()))
        )
    total, faults = (sum(map(f, counts.values())) for f in (Counter.total, lambda c: c["fault"]))
    print(f"{total:,} inputs, {faults:,} faults of {end}")


def _folder(folder: Path, name: str) -> Path:
    own = folder / name.replace(" ", "_")
    own.mkdir()
    return fuzz_targets.place(name, own)


def _again(name: str, seed: int) -> None:
    target = fuzz_targets.TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = _folder(Path(folder), name)
        path.write_bytes(fuzz.mutated((fuzz_targets.SAMPLES / target.file).read_bytes(), target.ways, seed))
        try:
            target.read(path)
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main()
