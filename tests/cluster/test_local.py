"""--on local: the plain command's bytes, whatever is killed, for every tool that divides."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

NONE = ("--calib", "none", "--calib-tokens", "0")
LOCAL = ("--on", "local", "--jobs", 2, "--work")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Small data for each tool."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    np.save(folder / "points.npy", rng.standard_normal((600, 3)) @ rng.standard_normal((3, 6)))
    x = rng.standard_normal((400, 10)).astype("f4")
    np.savez(folder / "labelled.npz", x=x, y=(x[:, 0] > 0).astype("i8"))
    pairs = [
        {"hyp": rng.integers(0, 9, 12).tolist(), "refs": [rng.integers(0, 9, 12).tolist()]} for _ in range(51)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["bleu-gpu", "pairs.jsonl", "--mode", "sacrebleu", "--corpus", "--bootstrap", "20"],
        ["bleu-gpu", "pairs.jsonl", "--also", "chrf"],
        ["data-dim", "points.npy", "--estimator", "all"],
        ["scale-fit", "{runs}", "--bootstrap", "8000"],
        ["eval", "default:", "--tokens", "600", "--window", "128"],
    ],
    ids=lambda words: " ".join(words[:1] + words[3:4]),
)
def test_a_report_in_parts_is_the_report(run, inputs, runs, tmp_path, monkeypatch, words):
    monkeypatch.chdir(inputs)
    words = [word.format(runs=runs) for word in words]
    whole = run(*words, "--json")
    done = run(*words, "--json", *LOCAL, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert untimed(done.stdout) == untimed(whole.stdout)


def untimed(text):
    lines = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


@pytest.mark.parametrize(
    "words",
    [
        ["quantize", "default:", "--bits", "3", *NONE],
        pytest.param(
            [
                "stack-compress",
                "default:",
                "--calib-tokens",
                "512",
                "--no-compensate",
                "--rescore",
                "0",
                "--curve",
                "0",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda words: words[0],
)
def test_a_model_in_parts_has_the_plain_models_tensors(run, tmp_path, words):
    assert run(*words, "-o", tmp_path / "plain.safetensors").returncode == 0
    done = run(*words, "-o", tmp_path / "parts.safetensors", *LOCAL, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] in ("model", "stack")
    plain, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "parts"))
    assert list(plain) == list(parts)
    assert all(np.array_equal(plain[name], parts[name]) for name in plain)


def test_dimensions_in_parts_are_those_gathered_by_hand(run, inputs, tmp_path):
    words = [
        "intrinsic-dim",
        "--data",
        inputs / "labelled.npz",
        "--dims",
        "4,8",
        "--seeds",
        1,
        "--lr",
        "0.1",
        "--json",
    ]
    for index in (0, 1):
        assert run(*words, "--shard", f"{index}/2", "--work", tmp_path / "hand").returncode == 0
    hand = json.loads(run(*words, "--gather", "--work", tmp_path / "hand").stdout)
    done = run(*words, *LOCAL, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for key in ("d_int90", "curve", "baseline"):
        assert json.loads(done.stdout)[key] == hand[key]


def test_standard_input_is_kept_for_the_parts(run, inputs, tmp_path):
    data = (inputs / "points.npy").read_bytes()
    words = ("data-dim", "-", "--estimator", "mle", "--json")
    whole = run(*words, data=data)
    for _ in range(2):  # and the second time it is known again
        done = run(*words, *LOCAL, tmp_path / "run", data=data)
        assert done.stdout == whole.stdout, done.stderr
    other = run(*words, *LOCAL, tmp_path / "run", data=data[:-8] + b"\0" * 8)
    assert other.returncode == 3


def test_a_killed_worker_is_replaced(quick, plain, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "real = os.fork\n"
        "def fork():\n"
        "    child = real()\n"
        "    try:\n"
        "        if not child and os.open(os.environ['ONCE'], os.O_CREAT | os.O_EXCL):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    except FileExistsError:\n"
        "        pass\n"
        "    return child\n"
        "os.fork = fork\n"
    )
    here = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        "ONCE": f"{tmp_path}/once",
    }
    words = [sys.executable, "-m", "bntools", *quick, *map(str, LOCAL), str(tmp_path / "run")]
    done = subprocess.run(words, env=here, capture_output=True, timeout=300, check=False)
    assert done.stdout == plain
    assert json.loads(done.stderr.splitlines()[-1])["jobs"]["retries"] == 1
    assert b"exit code 137; try 1 of 2" in done.stderr


@pytest.mark.slow
def test_sigkill_of_everything_at_any_moment_costs_no_byte(quick, plain, tmp_path):
    chance = random.Random(0)
    for number in range(6):
        words = [sys.executable, "-m", "bntools", *quick, *map(str, LOCAL), str(tmp_path / f"run-{number}")]
        child = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            child.wait(chance.uniform(0.2, 3))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        done = subprocess.run(words, capture_output=True, timeout=300, check=False)
        assert done.stdout == plain, done.stderr


def test_a_failed_part_is_reported_with_its_error_and_its_command(run, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"N": 1}\n')
    done = run("scale-fit", tmp_path / "bad.jsonl", *LOCAL, tmp_path / "run")
    assert done.returncode == 3
    reported = re.search(r"part ([01]) failed", done.stderr)  # both fail: the one that was seen to end first
    assert reported, done.stderr
    assert "no key 'loss'" in done.stderr, "the part's own error"
    by_hand = done.stderr.partition("hint: the part by hand:")[2]
    assert "scale-fit" in by_hand
    assert f"--shard {reported[1]}/2" in by_hand, "the command is that of the part reported"


def test_another_run_is_refused_with_the_first_difference(run, quick, tmp_path):
    run(*quick, *LOCAL, tmp_path / "run")
    for change, named in ((("--seed", 1), "seed"), (("--jobs", 3), "jobs")):
        done = run(*quick, *LOCAL, tmp_path / "run", *change)
        assert done.returncode == 3
        assert named in done.stderr
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").touch()
    assert run(*quick, *LOCAL, tmp_path / "files").returncode == 2


def test_a_dry_run_writes_nothing(run, quick, tmp_path):
    done = run(*quick, *LOCAL, tmp_path / "run", "--dry-run")
    assert json.loads(done.stdout)["missing"] == [0, 1]
    assert not (tmp_path / "run").exists()
    printed = run(*quick, *LOCAL, tmp_path / "run", "--print").stdout.decode().splitlines()
    assert len(printed) == 2
    assert subprocess.run(["sh", "-nc", printed[0]], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--jobs", 0, "--on", "local", "--work", "w"), 2, "--jobs"),
        (("--jobs", 2, "--work", "w"), 2, "--on"),
        (("--on", "local", "--work", "w"), 2, "--jobs"),
        (("--on", "local", "--jobs", 2), 2, "--work"),
        (("--on", "local", "--jobs", 2, "--work", "w", "--shard", "0/2"), 2, "--shard"),
        (("--on", "local", "--jobs", 2, "--work", "w", "--gather", "."), 2, "--gather"),
        (("--on", "local", "--jobs", 2, "--work", "w", "--no-wait"), 2, "--no-wait"),
        (("--on", "slurm", "--jobs", 2, "--work", "w"), 5, "--on local"),
        (("--on", "slurm", "--jobs", 2, "--work", "w", "--mem", "much", "--print"), 2, "--mem"),
        (("--partition", "p"), 2, "--partition"),
        (("--work", "w"), 2, "--work"),
        (("-o", "part"), 2, "--shard"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(run, quick, tmp_path, monkeypatch, words, code, told):
    monkeypatch.chdir(tmp_path)
    done = run(*quick, *words, PATH="/nowhere")
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "w").exists()


def test_the_environment_names_the_place_and_asks_for_nothing(run, quick, plain, tmp_path):
    assert run(*quick, BNTOOLS_ON="local").stdout == plain
    done = run(*quick, "--jobs", 2, "--work", tmp_path / "run", BNTOOLS_ON="local")
    assert done.stdout == plain
    assert (tmp_path / "run" / "parts" / "1.safetensors").exists()


def test_two_commands_do_not_share_a_folder(quick, tmp_path, run):
    run(*quick, *LOCAL, tmp_path / "run")
    import fcntl

    fd = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        done = run(*quick, *LOCAL, tmp_path / "run")
    finally:
        os.close(fd)
    assert done.returncode == 2
    assert "another command" in done.stderr


def test_the_tools_tell_what_they_do_not_divide(run, inputs, tmp_path):
    for words in (
        ("bleu-gpu", inputs / "pairs.jsonl", "--stats"),
        ("intrinsic-dim", "--data", inputs / "labelled.npz"),
        ("intrinsic-dim", "--data", inputs / "labelled.npz", "--dims", "4", "-o", tmp_path / "o"),
    ):
        done = run(*words, *LOCAL, tmp_path / "run")
        assert done.returncode == 2, done.stderr
        assert not (tmp_path / "run").exists()
