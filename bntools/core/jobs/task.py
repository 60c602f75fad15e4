"""What a job of the scheduler runs: one part as a command line of its own, and what became of it.

usage: python -m bntools.core.jobs.task FOLDER TOKEN OFFSET        part OFFSET + SLURM_ARRAY_TASK_ID
       python -m bntools.core.jobs.task FOLDER gather              the command that joins the parts
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bntools.core.errors import BnError
from bntools.core.jobs.folder import RunFolder, write_json

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
PLAN_VARIABLE = "BNTOOLS_PLAN"
_PR_SET_PDEATHSIG = 1
_PATIENCE = 120  # seconds a task waits for an earlier one of the same part that was not ended yet


def environment(cpus: int, digest: str) -> dict[str, str]:
    """What a task's environment says beside the driver's: its threads, and whose part it makes."""
    return {**dict.fromkeys(THREADS, str(cpus)), PLAN_VARIABLE: digest}


def perform(folder: RunFolder, index: int, token: str) -> int:
    """Run one part; returns its exit code, negative for a signal as in subprocess."""
    began, path = time.time(), folder.path / "status" / f"{index}.json"
    facts = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "started": round(began, 3),
             "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}  # fmt: skip
    write_json(path, facts)
    with _alone(folder, index):
        if folder.done([index]):
            code, ended = 0, False
        else:
            code, ended = _run(folder, index)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts["seconds"], facts["cpu_seconds"] = (
        round(time.time() - began, 3),
        round(spent.ru_utime + spent.ru_stime, 3),
    )
    # A task that the scheduler ends leaves no code: the scheduler itself may start it again.
    write_json(path, facts if ended else {**facts, "code": code})
    return code


def _run(folder: RunFolder, index: int) -> tuple[int, bool]:
    """(exit code, whether this process was told to end)."""
    cpus = int(os.environ.get("SLURM_CPUS_PER_TASK") or folder.plan.cpus)
    here = {key: value for key, value in os.environ.items() if key not in ("BNTOOLS_ON", "BNTOOLS_SBATCH")}
    here |= environment(cpus, folder.plan.digest)
    # Many tasks compiling into one folder of a network file system race; a node's own does not.
    here.setdefault("NUMBA_CACHE_DIR", f"{tempfile.gettempdir()}/bntools-numba-{os.getuid()}")
    words = [sys.executable, "-m", "bntools", *folder.plan.words(index, str(folder.path))]
    out = folder.path / "logs" / f"{index}.out"
    with open(out, "wb") as stdout, open(folder.path / "logs" / f"{index}.err", "wb") as stderr:
        code, ended = _call(words, folder.plan.cwd, here, (stdout, stderr))
    if folder.plan.ledger and code == 0:
        os.replace(out, folder.part(index))
    return code, ended


def _call(words: Sequence[str], cwd: str, here: dict[str, str], streams: tuple) -> tuple[int, bool]:
    """A child that gets the signals this process gets."""
    ended = []
    mine = os.getpid()
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # warnings of a scheduler: files are kept without them
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(
        words, cwd=cwd, env=here, stdin=subprocess.DEVNULL, stdout=streams[0], stderr=streams[1],
        preexec_fn=lambda: die_with(mine),
    )  # fmt: skip

    def forward(number: int, frame: object) -> None:
        ended.append(number)
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return child.wait(), bool(ended)


def die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, where it can (Linux): none works on unwatched."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def _alone(folder: RunFolder, index: int) -> Iterator[None]:
    """Keep two tasks of one part apart: a scheduler may start it again before the first is quite gone."""
    fd = os.open(folder.path / "status" / f"{index}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.5)
        yield
    finally:
        os.close(fd)


def gather(folder: RunFolder) -> int:
    """Run the command that joins the parts; what it prints is in logs/gather.out."""
    words = [sys.executable, "-m", "bntools", *folder.state()["gather_words"]]
    logs = folder.path / "logs"
    with open(logs / "gather.out", "wb") as stdout, open(logs / "gather.err", "wb") as stderr:
        return _call(words, folder.plan.cwd, dict(os.environ), (stdout, stderr))[0]


def main(arguments: Sequence[str]) -> int:
    try:
        folder = RunFolder.open(str(Path(arguments[0])))
        if arguments[1] == "gather":
            code = gather(folder)
        else:
            index = int(arguments[2]) + int(os.environ["SLURM_ARRAY_TASK_ID"])
            code = perform(folder, index, arguments[1])
    except BnError as error:
        print(f"{error.what}\nhint: {error.hint}", file=sys.stderr)
        return error.code
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
