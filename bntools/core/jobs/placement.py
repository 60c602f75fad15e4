"""Where a command runs and in how many parts: what --on and the options beside it say."""

from __future__ import annotations

from typing import NamedTuple

ENGINES = ("slurm", "local")
SHORTEST = 10  # minutes: below that a scheduler that warns a minute early leaves little of a job


class Placement(NamedTuple):
    """A named tuple: dataclasses would add to the cost of --help. time: minutes of a job; parallel: jobs at a time."""

    on: str | None = None
    jobs: int | None = None
    no_wait: bool = False
    print_only: bool = False
    partition: str | None = None
    time: int = 60
    mem: str | None = None
    cpus: int = 1
    gpus: int = 0
    parallel: int | None = None
    sbatch: tuple[str, ...] = ()
    retries: int = 2
    cancel_on_interrupt: bool = False
