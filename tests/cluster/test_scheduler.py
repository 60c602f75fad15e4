"""--on slurm against stand-ins for its commands: what is submitted, tried again, cancelled and said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from support import schedulers

FAST = {"SOURCE_DATE_EPOCH": "0"}


@pytest.fixture
def cluster(tmp_path, run):
    """Run a command with stand-ins; keyword arguments are their behaviour."""

    def call(*words, **behaviour):
        here = call.here or schedulers.fake(tmp_path / "cluster")
        call.here = here
        return run(*words, "--on", "slurm", "--work", tmp_path / "run", **{**here, **behaviour})

    call.here = None
    call.folder = tmp_path / "cluster"
    call.work = tmp_path / "run"
    return call


def test_the_result_is_that_of_the_plain_command(cluster, quick, plain):
    done = cluster(*quick, "--jobs", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain
    assert json.loads(done.stderr.splitlines()[-1])["jobs"]["array"] == ["1"]
    script = (cluster.folder / "script-1").read_text()
    assert "#SBATCH --array=0-2\n" in script
    assert "#SBATCH --requeue\n" in script
    assert "--open-mode=append" in script


def test_only_missing_parts_are_submitted(cluster, quick, plain):
    cluster(*quick, "--jobs", 5)
    for index in (1, 2, 4):
        (cluster.work / "parts" / f"{index}.safetensors").unlink()
    assert cluster(*quick, "--jobs", 5).stdout == plain
    assert "#SBATCH --array=1-2,4\n" in (cluster.folder / "script-2").read_text()
    assert cluster(*quick, "--jobs", 5).stdout == plain
    assert len(schedulers.calls(cluster.folder, "sbatch")) == 2


@pytest.mark.parametrize("change", ["damaged", "other plan", "wrong index"])
def test_a_part_that_is_not_of_this_run_is_made_again(cluster, quick, plain, change):
    cluster(*quick, "--jobs", 3)
    part = cluster.work / "parts" / "1.safetensors"
    data = part.read_bytes()
    plan = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["bntools.part"]
    digest = json.loads(plan)["plan"].encode()
    part.write_bytes({
        "damaged": data[:-3],
        "other plan": data.replace(digest, digest[::-1]),
        "wrong index": (cluster.work / "parts" / "0.safetensors").read_bytes(),
    }[change])  # fmt: skip
    assert cluster(*quick, "--jobs", 3).stdout == plain
    assert "--array=1\n" in (cluster.folder / "script-2").read_text()


def test_options_reach_the_script(cluster, quick):
    words = ("--partition", "p", "--time", 7, "--mem", "2GiB", "--cpus", 3, "--gpus", 1, "--parallel", 2)
    done = cluster(*quick, "--jobs", 4, *words, "--sbatch", "account=lab", "--sbatch", "exclusive", "--print")
    text = done.stdout.decode()
    for line in ("--partition=p", "--time=7", "--mem=2048M", "--cpus-per-task=3", "--gpus-per-node=1",
                 "--array=0-3%2", "--account=lab", "--exclusive"):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert not cluster.work.exists()
    assert not schedulers.calls(cluster.folder, "sbatch")


def test_more_jobs_than_an_array_holds_are_several_arrays(cluster, quick, plain):
    assert cluster(*quick, "--jobs", 3, FAKE_MAX="2").stdout == plain
    assert len(schedulers.calls(cluster.folder, "sbatch")) == 2


def test_no_wait_says_what_it_left_and_joins_only_after_success(cluster, quick):
    done = cluster(*quick, "--jobs", 3, "--no-wait", FAKE_IDLE="1")
    told = json.loads(done.stdout)
    assert told["kind"] == "jobs"
    assert told["missing"] == [0, 1, 2]
    assert (told["array"], told["gather"]) == (["1"], "2")
    assert told["state"] == {"done": 0, "running": 0, "pending": 3, "failed": 0}
    script = (cluster.folder / "script-2").read_text()
    assert "--dependency=afterok:1\n" in script
    assert "--kill-on-invalid-dep=yes\n" in script


def test_jobs_of_an_earlier_call_are_not_submitted_again(cluster, quick):
    cluster(*quick, "--jobs", 3, "--no-wait", FAKE_IDLE="1")
    cluster(*quick, "--jobs", 3, "--no-wait", FAKE_IDLE="1")
    scripts = [path.read_text() for path in cluster.folder.glob("script-*")]
    assert sum("--array" in text for text in scripts) == 1


def test_a_refused_job_leaves_nothing_submitted(cluster, quick):
    why = "Batch job submission failed: Invalid partition name specified"
    done = cluster(*quick, "--jobs", 3, FAKE_MAX="2", FAKE_REFUSES=why, FAKE_REFUSES_AT="2")
    assert done.returncode == 1
    assert "Invalid partition name" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert schedulers.calls(cluster.folder, "scancel") == ["scancel 1"]


def test_bad_input_is_not_tried_again_and_is_the_exit_code(cluster, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"N": 1}\n')
    done = cluster("scale-fit", tmp_path / "bad.jsonl", "--jobs", 2)
    assert done.returncode == 3
    assert re.search(r"part [01] failed: exit code 3", done.stderr)
    assert "bntools scale-fit: error:" in done.stderr
    assert re.search(r"hint: .*--shard [01]/2", done.stderr)
    assert len(schedulers.calls(cluster.folder, "sbatch")) == 1


def test_a_killed_task_is_tried_again_with_twice_the_memory_and_then_reported(cluster, quick, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if '--shard' in sys.orig_argv and '1/3' in sys.orig_argv: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = cluster(*quick, "--jobs", 3, "--mem", "100MiB", PYTHONPATH=path)
    assert done.returncode == 1
    assert "part 1 failed: exit code 137" in done.stderr
    scripts = [(cluster.folder / f"script-{n}").read_text() for n in (1, 2, 3)]
    assert [f"--mem={size}M\n" in text for size, text in zip((100, 200, 400), scripts, strict=True)] == [
        True
    ] * 3
    assert "--array=1\n" in scripts[1]
    assert cluster(*quick, "--jobs", 3).returncode == 0


def test_jobs_that_never_see_the_folder_are_explained(cluster, quick, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'bntools.core.jobs.task' in sys.orig_argv: raise SystemExit(1)\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = cluster(*quick, "--jobs", 2, PYTHONPATH=path)
    assert done.returncode == 1
    assert "without having seen" in done.stderr
    assert "visible on the nodes?" in done.stderr


def test_an_interrupt_leaves_the_jobs_and_says_how_to_go_on(tmp_path, quick):
    here = schedulers.fake(tmp_path / "cluster", FAKE_IDLE="1")
    words = [
        sys.executable,
        "-m",
        "bntools",
        *quick,
        "--jobs",
        "2",
        "--on",
        "slurm",
        "--work",
        str(tmp_path / "run"),
    ]
    child = subprocess.Popen(words, env={**os.environ, **here}, stderr=subprocess.PIPE, text=True)
    schedulers.wait(lambda: schedulers.calls(tmp_path / "cluster", "squeue"))
    child.send_signal(signal.SIGINT)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "jobs 1 go on" in error
    assert not schedulers.calls(tmp_path / "cluster", "scancel")


def test_cancel_on_interrupt_cancels(tmp_path, quick):
    here = schedulers.fake(tmp_path / "cluster", FAKE_IDLE="1")
    words = [
        sys.executable,
        "-m",
        "bntools",
        *quick,
        "--jobs",
        "2",
        "--on",
        "slurm",
        "--work",
        str(tmp_path / "run"),
    ]
    words.append("--cancel-on-interrupt")
    child = subprocess.Popen(words, env={**os.environ, **here}, stderr=subprocess.PIPE, text=True)
    schedulers.wait(lambda: schedulers.calls(tmp_path / "cluster", "squeue"))
    child.send_signal(signal.SIGINT)
    assert "cancelled" in child.communicate(timeout=60)[1]
    assert schedulers.calls(tmp_path / "cluster", "scancel") == ["scancel 1"]
