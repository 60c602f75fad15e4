"""The batch script of an array, by submitit, and its submission."""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bntools.core.errors import MISSING, BnError, require, usage
from bntools.core.jobs.placement import Placement

ARRAY_SIZE = 1001  # Slurm's default of MaxArraySize: indices are below it


def ranges(indices: Iterable[int]) -> str:
    """`0-3,7,9-12` of ascending indices."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def parameters(placement: Placement, name: str, mem: int | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """What submitit's executor is told; `more` goes into the script as it is."""
    extra: dict[str, Any] = {"requeue": True, **more}
    for text in placement.sbatch:
        key, equals, value = text.partition("=")
        extra[key.strip().lstrip("-")] = value if equals else True
    told = {
        "job_name": name, "time": placement.time, "cpus_per_task": placement.cpus, "use_srun": False, "wckey": None,
        "additional_parameters": extra, "partition": placement.partition,
        "gpus_per_node": placement.gpus or None, "mem": f"{mem >> 20}M" if mem else None,
    }  # fmt: skip
    return {key: value for key, value in told.items() if value is not None or key == "wckey"}


def check() -> None:
    """Raise BnError (exit 5) where sbatch or submitit is missing."""
    if shutil.which("sbatch") is None:
        raise BnError("--on slurm: there is no sbatch on PATH", "--on local", MISSING)
    require("submitit", "cluster")


def text(command: list[str], logs: Path, told: Mapping[str, Any]) -> str:
    """The script that would be submitted."""
    require("submitit", "cluster")
    from submitit.slurm.slurm import _make_sbatch_string  # no public function gives the text alone

    return _make_sbatch_string(shlex.join(command), logs, **told)


def submit(command: list[str], logs: Path, told: Mapping[str, Any]) -> str:
    """Submit a script; returns the job's id. Raises BnError (exit 1) with what sbatch says where it refuses."""
    submitit = require("submitit", "cluster")
    logging.getLogger("submitit").setLevel(logging.ERROR)
    try:
        executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=0)
        executor.update_parameters(**told)
        # The task is a command line, not a pickled function, so submitit's own job object is of no use. What it
        # repeats of sbatch's errors is in the exception.
        with contextlib.redirect_stderr(io.StringIO()):
            return str(executor._submit_command(shlex.join(command)).job_id)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if "sbatch: error:" in line]
        what = " ".join(line.partition("sbatch: error:")[2].strip() for line in lines) or str(error).strip()
        raise BnError(
            f"sbatch refused the jobs: {what.splitlines()[-1]}", "--partition, --time, --mem or --sbatch"
        ) from None


def task(folder: Path, *words: object) -> list[str]:
    """The command that a job runs."""
    return [sys.executable, "-m", "bntools.core.jobs.task", str(folder), *map(str, words)]


def array_size() -> int:
    """MaxArraySize of this cluster."""
    try:
        told = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ARRAY_SIZE
    for line in told.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdecimal():
            return max(1, int(value))
    return ARRAY_SIZE


def check_sbatch(words: Iterable[str]) -> None:
    """Raise BnError (exit 2) for an option of sbatch that is ours to set."""
    for word in words:
        key = word.partition("=")[0].strip().lstrip("-")
        if not key or key in ("array", "dependency", "kill-on-invalid-dep", "wrap", "output", "error"):
            raise usage(f"--sbatch {word}: {key or 'a name'} is set by bntools", "--sbatch account=NAME")
