"""Stand-ins for a scheduler, and a real Slurm on loopback, for tests of --on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

FAKE = Path(__file__).with_name("fake_slurm.py")
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun")


def fake(folder: Path, **behaviour: str) -> dict[str, str]:
    """The environment in which sbatch and the rest are scripts that run tasks in the background.

    behaviour: environment variables of fake_slurm.py. What was called is in folder/calls, a line each.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name in COMMANDS:
        path = bin_folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{FAKE}" {name} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{bin_folder}:{os.environ['PATH']}", "FAKE_SLURM": str(folder), **behaviour}


def calls(folder: Path, name: str = "") -> list[str]:
    """Command lines that the stand-ins were called with."""
    text = (folder / "calls").read_text() if (folder / "calls").exists() else ""
    return [line for line in text.splitlines() if line.startswith(name)]


def missing() -> str:
    """Why a real Slurm cannot be started here; empty where it can."""
    for name in ("slurmctld", "slurmd", "sbatch", "squeue"):
        if shutil.which(name) is None and not Path(f"/usr/sbin/{name}").exists():
            return f"no {name}: apt-get install slurmctld slurmd slurm-client"
    return "" if os.getuid() == 0 else "slurmd is started as root only"


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _configuration(folder: Path) -> str:
    host = socket.gethostname().partition(".")[0]
    control, *nodes = _ports(3)
    lines = [
        "ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={control}", "AuthType=auth/none",
        "CredType=cred/none", "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny", "SlurmUser=root",
        "SlurmdUser=root", f"StateSaveLocation={folder}/state", f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/control.pid", f"SlurmdPidFile={folder}/%n.pid",
        f"SlurmctldLogFile={folder}/log/control.log", f"SlurmdLogFile={folder}/log/%n.log",
        "ProctrackType=proctrack/pgid", "TaskPlugin=task/none", "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none", "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core", "SlurmdParameters=config_overrides", "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2", "SlurmdTimeout=10", "SlurmctldTimeout=10",
        "ReturnToService=2", "KillWait=3", "MinJobAge=60", "JobRequeue=1", "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
    ]  # fmt: skip
    lines += [
        f"NodeName=n{index} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000"
        for index, port in enumerate(nodes, 1)
    ]
    lines += [
        "PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE",
        "PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A controller and two nodes; yields the environment in which they are reached. All end by their process ids."""
    for name in ("state", "log"):
        (folder / name).mkdir(parents=True)
    file = folder / "slurm.conf"
    file.write_text(_configuration(folder))
    here = {"SLURM_CONF": str(file), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for index, words in enumerate(
            (["slurmctld", "-c", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"])
        ):
            log = open(folder / "log" / f"{index}.out", "wb")  # noqa: SIM115 - the daemon's
            daemons.append(
                subprocess.Popen(
                    words, env={**os.environ, **here}, stdout=log, stderr=log, start_new_session=True
                )
            )
            log.close()
        wait(lambda: "idle 2" in tell(here, "sinfo", "-h", "-o", "%t %D"))
        yield here
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def tell(here: dict[str, str], *words: str) -> str:
    """What a command of Slurm prints."""
    done = subprocess.run(
        words, env={**os.environ, **here}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout


def wait(condition, seconds: float = 120.0) -> None:
    """Poll until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
