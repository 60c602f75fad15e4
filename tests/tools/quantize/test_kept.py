"""A run that was killed ends with the same bytes; parts joined are the bytes of one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import make_model

from bntools.core.model.open import open_model
from bntools.core.work.folder import Work
from bntools.tools.quantize import units
from bntools.tools.quantize.fixed import calibrated as method
from bntools.tools.quantize.fixed.calibrated import calibrated
from bntools.tools.quantize.fixed.rounding import quantize
from bntools.tools.quantize.plan import task_of
from bntools.tools.quantize.settings import Grid, Settings

STILL = {"SOURCE_DATE_EPOCH": "0"}  # the history's times are all that may differ
GPTQ = ["--method", "gptq", "--calib-tokens", "1000", "--group-size", "32"]
RTN = ["--bits", "3", "--group-size", "32"]


def windows_of():
    return torch.randint(2, 90, (3, 16), generator=torch.Generator().manual_seed(0))


def compare(left, right):
    left, right = list(left), list(right)
    assert [r.name for r in left] == [r.name for r in right]
    for a, b in zip(left, right, strict=True):
        assert (a.spec, a.measured, a.reason) == (b.spec, b.measured, b.reason)
        assert list(a.tensors) == list(b.tensors)
        assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("moment", [0, 1, 3, 8, 14, 17])
def test_gptq_stopped_at_any_tensor_goes_on_to_the_same_result(moment, sequential, tmp_path):
    make_model("llama", tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    settings = Settings(Grid(3, 16), method="gptq", sequential=sequential)
    task = task_of(model, settings)

    def run(work=None):
        return calibrated(task, {}, windows_of(), work=work)

    work = Work(str(tmp_path / "w"), {"a": 1})
    stream = run(work)
    for _ in range(moment):
        next(stream)
    stream.close()
    compare(run(), run(work))
    compare(run(), run(work))


def test_finished_blocks_are_not_computed_again(tmp_path, monkeypatch):
    make_model("llama", tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    settings = Settings(Grid(3, 16), method="gptq")
    work = Work(str(tmp_path / "w"), {"a": 1})

    def run():
        return list(calibrated(task_of(model, settings), {}, windows_of(), work=work))

    run()
    monkeypatch.setattr(method, "gptq", None)
    assert len(run()) == len(model.entries)


@pytest.mark.parametrize("moment", [0, 2, 9])
def test_rounding_stopped_at_any_tensor_goes_on_to_the_same_result(moment, tmp_path):
    make_model("llama", tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    settings = Settings(Grid(3, 16))
    task = task_of(model, settings)
    work = Work(str(tmp_path / "w"), {"a": 1})
    stream = units.resumed(work, task.items, lambda left: quantize(task.of(left), {}))
    finished = sum(next(stream).spec is not None for _ in range(moment))
    stream.close()
    asked = []

    def compute(left):
        asked.extend(item.name for item in left if item.grid)
        return quantize(task.of(left), {})

    compare(quantize(task, {}), units.resumed(work, task.items, compute))
    assert len(asked) == len(model.linears) - finished


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [[*GPTQ, "--dim", "ada", "--criterion", "diag"], [*RTN, "--grid", "weighted"]]
)
def test_kill_9_loses_nothing(arguments, run, tmp_path):
    command = ["quantize", "default:", *arguments, "-q", "-o", "q.safetensors"]
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    words = [sys.executable, "-m", "bntools", *command]
    subprocess.run(words, cwd=folders[0], env={**os.environ, **STILL}, check=True, stdout=subprocess.DEVNULL)
    work = folders[1] / "w"
    victim = subprocess.Popen(
        [*words, "--work", "w"], cwd=folders[1], env={**os.environ, **STILL}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while victim.poll() is None and time.monotonic() < deadline:
        if any(
            word in child.name for child in work.glob("*.unit.safetensors") for word in ("block", "tensor")
        ):
            break
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "it was to be killed in the middle"
    assert not (folders[1] / "q.safetensors").exists()
    subprocess.run(
        [*words, "--work", "w"],
        cwd=folders[1],
        env={**os.environ, **STILL},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    whole, again = ((folder / "q.safetensors").read_bytes() for folder in folders)
    assert whole == again


@pytest.mark.slow
def test_a_work_folder_of_other_settings_is_refused(run, tmp_path):
    out, work = tmp_path / "q.safetensors", tmp_path / "w"
    assert run("quantize", "default:", *RTN, "--work", work, "-o", out).returncode == 0
    for other, told in ((["--bits", "4"], "bits 3, not 4"), (["--seed", "1"], "seed 0, not 1")):
        done = run("quantize", "default:", *RTN, *other, "--work", work, "-o", tmp_path / "r.safetensors")
        assert done.returncode == 3
        assert told in done.stderr
        assert "hint: " in done.stderr


@pytest.mark.slow
def test_gathered_parts_are_the_bytes_of_one_run(run, tmp_path):
    command = ["quantize", "default:", *RTN, "-q"]
    whole = run(*command, **STILL)
    for index in range(3):
        done = run(*command, "--shard", f"{index}/3", "-o", tmp_path / f"part-{index}.safetensors")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kind"] == "model-part"
    joined = run(*command, "--gather", tmp_path, **STILL)
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout == whole.stdout
    (tmp_path / "part-1.safetensors").unlink()
    broken = run(*command, "--gather", tmp_path)
    assert broken.returncode == 3
    assert "part 1/3 is missing" in broken.stderr
    other = run("quantize", "default:", "--bits", "4", "--gather", tmp_path)
    assert other.returncode == 3
    assert "bits 3, not 4" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shard", "3/3"], "I/N"),
        (["--shard", "0/2", "--method", "gptq"], "without calibration"),
        (["--shard", "0/2", "--gather", "."], "--gather"),
    ],
)
def test_options_about_parts_that_make_no_sense_say_so(arguments, told, run):
    done = run("quantize", "default:", *arguments, "-o", "never.safetensors")
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize("sequential", [False, True])
def test_any_number_of_threads_gives_the_same_codes(sequential, tmp_path):
    make_model("llama", tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    settings = Settings(Grid(3, 16), method="gptq", search="weighted", sequential=sequential)
    found, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        stream = calibrated(task_of(model, settings), {}, windows_of())
        found.append(list(stream))
    torch.set_num_threads(before)
    compare(*found)
