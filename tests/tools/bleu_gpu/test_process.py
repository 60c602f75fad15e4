"""bleu-gpu as a process among others: what it imports, holds and leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "bntools", "bleu-gpu", "-"]
LINE = b'{"hyp": [1, 2, 3, 4, 5], "refs": [[1, 2, 3, 4, 6], [7]]}\n'


def peak(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def answer(process: subprocess.Popen[bytes], count: int) -> None:
    """Write lines a block at a time; their scores come back before more are asked for."""
    assert process.stdin
    assert process.stdout
    for start in range(0, count, 1000):
        process.stdin.write(LINE * min(1000, count - start))
        process.stdin.flush()
        for _ in range(min(1000, count - start)):
            assert 0 < json.loads(process.stdout.readline())["bleu"] < 1


def test_scores_come_as_lines_do_in_constant_memory_until_interrupted():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(COMMAND, **pipes) as process:
        answer(process, 1)  # one line is not kept waiting for others
        answer(process, 5000)
        before = peak(process)
        answer(process, 60_000)
        assert peak(process) - before < 8e6  # the lines are 3.4 MB, their ids 5.3 MB
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"interrupted" in err
    assert b"Traceback" not in err


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_it_quietly():
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        answer(process, 1)
        process.stdout.close()
        process.stdin.write(LINE)
        process.stdin.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_lines_of_ids_are_scored_without_importing_torch():
    script = "import sys; from bntools.cli import run; code = run(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    words = ["bleu-gpu", "--mode", "sacrebleu", "--corpus", "--bootstrap", "10", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], input=LINE * 20, capture_output=True, check=True
    )
    assert done.stdout.splitlines()[-1] == b"0 False"
