"""--on slurm with a real controller and two nodes on loopback, accounting off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import schedulers

from bntools.core.jobs.folder import RunFolder

WHY = schedulers.missing()
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(WHY), reason=WHY or "never")]
ON = ("--on", "slurm", "--time", "5")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with schedulers.slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def begin(here):
    """Start a command; it is ended with the test."""
    begun = []

    def start(*words, **more):
        environment = {**os.environ, **here, **more}
        child = subprocess.Popen([sys.executable, "-m", "bntools", *map(str, words)], env=environment,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        begun.append(child)
        return child

    yield start
    for child in begun:
        if child.poll() is None:
            child.kill()
        child.communicate()


def slow_part(folder: Path, index: int, seconds: float) -> str:
    """PYTHONPATH under which the tool of one part first sleeps, and says so in a file."""
    (folder / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        f"if '-m' in sys.orig_argv and any(word.startswith('{index}/') for word in sys.orig_argv):\n"
        f"    with open('{folder}/pids', 'a') as file: file.write(str(os.getpid()) + chr(10))\n"
        f"    if not os.path.exists('{folder}/free'): time.sleep({seconds})\n"
    )
    return f"{folder}:{os.environ.get('PYTHONPATH', '')}"


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_an_array_gives_the_plain_models_tensors(run, here, tmp_path):
    words = ("quantize", "default:", "--bits", 3, "--calib", "none", "--calib-tokens", 0)
    assert run(*words, "-o", tmp_path / "plain.safetensors").returncode == 0
    done = run(
        *words, "-o", tmp_path / "out.safetensors", *ON, "--jobs", 3, "--work", tmp_path / "run", **here
    )
    assert done.returncode == 0, done.stderr
    plain, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "out"))
    assert list(plain) == list(parts)
    assert all(np.array_equal(plain[name], parts[name]) for name in plain)


def test_no_wait_joins_by_a_dependent_job(run, here, quick, plain, tmp_path):
    done = run(*quick, *ON, "--jobs", 2, "--work", tmp_path / "run", "--no-wait", **here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gather"]
    result = tmp_path / "run" / "logs" / "gather.out"
    schedulers.wait(lambda: result.exists() and result.read_bytes() == plain)


def test_a_join_after_a_failed_part_is_cancelled_not_pending_for_ever(run, here, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"N": 1}\n')
    words = ("scale-fit", tmp_path / "bad.jsonl", *ON, "--jobs", 2, "--work", tmp_path / "run", "--no-wait")
    job = json.loads(run(*words, **here).stdout)["gather"]
    schedulers.wait(
        lambda: "CANCELLED" in schedulers.tell(here, "squeue", "-h", "-t", "all", "-j", job, "-o", "%T")
    )


def test_a_refused_partition_is_one_line(run, here, quick, tmp_path):
    done = run(*quick, *ON, "--jobs", 2, "--work", tmp_path / "run", "--partition", "nowhere", **here)
    assert done.returncode == 1
    assert "invalid partition" in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 2


def test_a_killed_tool_and_a_killed_task_are_reported_within_a_minute(begin, quick, tmp_path):
    for victim in ("tool", "task"):
        folder = tmp_path / victim
        folder.mkdir()
        child = begin(*quick, *ON, "--jobs", 2, "--work", folder / "run", "--retries", 0,
                      PYTHONPATH=slow_part(folder, 1, 600))  # fmt: skip
        schedulers.wait(lambda folder=folder: pids(folder))
        target = pids(folder)[0]
        if victim == "task":
            target = RunFolder.open(str(folder / "run")).status(1)["pid"]
        os.kill(target, signal.SIGKILL)
        killed = time.monotonic()
        error = child.communicate(timeout=180)[1]
        print(f"{victim}: reported {time.monotonic() - killed:.1f} s after SIGKILL")
        assert child.returncode == 1
        assert "part 1 failed" in error


def test_a_preempted_task_starts_again_at_once_and_the_result_is_the_same(
    begin, here, quick, plain, tmp_path
):
    child = begin(
        *quick, *ON, "--jobs", 2, "--work", tmp_path / "run", PYTHONPATH=slow_part(tmp_path, 1, 600)
    )
    schedulers.wait(lambda: pids(tmp_path))
    (tmp_path / "free").touch()
    schedulers.tell(
        here, "sbatch", "-p", "high", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3"
    )
    asked = time.monotonic()
    out, error = child.communicate(timeout=180)
    print(f"preempted: the report came {time.monotonic() - asked - 3:.1f} s after the 3 s of the other job")
    assert out.encode() == plain, error
    assert json.loads(error.splitlines()[-1])["jobs"]["restarts"] >= 1
    first, again = (RunFolder.open(str(tmp_path / "run")).status(1)["started"], pids(tmp_path))
    assert len(again) == 2, first


def test_a_driver_that_is_killed_finds_its_jobs_again(begin, here, quick, plain, tmp_path):
    words = (*quick, *ON, "--jobs", 2, "--work", tmp_path / "run")
    first = begin(*words, PYTHONPATH=slow_part(tmp_path, 1, 5))
    schedulers.wait(lambda: pids(tmp_path))
    first.kill()
    first.communicate()
    out, error = begin(*words).communicate(timeout=180)
    assert out.encode() == plain, error
    assert len(json.loads((tmp_path / "run" / "state.json").read_text())["arrays"]) == 1
    assert len(pids(tmp_path)) == 1
