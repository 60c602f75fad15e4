"""Damaged files of every kind: whoever reads one refuses it in a line, with no raw exception, no hang and no bulk."""

from __future__ import annotations

import random
import resource
import signal
import zlib

import pytest
from support import fuzz, fuzz_targets

INPUTS = 12  # a target; tests/benchmarks/fuzz.py reads a million
ONCE_FAULTS = {"blocks": (900262,)}  # seeds


class TooLong(BaseException):
    """The alarm; no reader may catch it."""


@pytest.fixture
def alarm():
    def ring(number, frame):
        raise TooLong

    before = signal.signal(signal.SIGPROF, ring)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused_and_nothing_else(name, tmp_path, alarm):
    target, path = fuzz_targets.TARGETS[name], fuzz_targets.place(name, tmp_path)
    data = (fuzz_targets.SAMPLES / target.file).read_bytes()
    path.write_bytes(data)
    whole = fuzz_targets.attempt(name, path)  # and numba compiles before the clock runs
    assert whole == ("refused" if name in fuzz_targets.TOO_FEW else "read")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in (*ONCE_FAULTS.get(name, ()), *(zlib.crc32(f"{name} {i}".encode()) for i in range(INPUTS))):
        path.write_bytes(fuzz.mutated(data, target.ways, seed))
        signal.setitimer(signal.ITIMER_PROF, 5)  # of CPU: the machine may be loaded
        assert fuzz_targets.attempt(name, path) in ("read", "refused"), seed
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown << 10 <= 3 * len(data) + (64 << 20)


def test_a_seed_is_one_mutation_whatever_came_before():
    data = (fuzz_targets.SAMPLES / "cbm.safetensors").read_bytes()
    first = [fuzz.mutated(data, (fuzz.artifact,), seed) for seed in range(40)]
    again = [fuzz.mutated(data, (fuzz.artifact,), seed) for seed in reversed(range(40))]
    assert first == again[::-1]
    assert len(set(first)) > 30


def test_a_header_that_stays_sound_is_taken_by_the_parser_mostly():
    """Else nothing behind the header would be tried."""
    from bntools.core.artifact import header
    from bntools.core.errors import BnError

    data, sound = (fuzz_targets.SAMPLES / "index.safetensors").read_bytes(), 0
    for seed in range(100):
        changed = fuzz.artifact(data, random.Random(seed))
        try:
            length = int.from_bytes(changed[:8], "little")
            sound += header.parse(changed[8 : 8 + length]).total == len(changed)
        except BnError:
            continue
    assert sound > 50
