"""--on and the options that say how its jobs are run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from bntools.core.errors import usage
from bntools.core.jobs.placement import ENGINES, Placement

PLACES = ("--work", "--shard", "--gather", "--on", "--jobs", "--partition", "--time", "--mem", "--cpus", "--gpus",
          "--parallel", "--sbatch", "--retries")  # fmt: skip
"""Options with a value that say only where and in how many parts a command ran."""
PLACE_FLAGS = ("--no-wait", "--print", "--cancel-on-interrupt")

_JOBS = [
    click.option("--on", type=click.Choice(ENGINES), envvar="BNTOOLS_ON",
                 help="Run in --jobs parts on a Slurm cluster, or in processes of this machine; see bntools-jobs(7)."),
    click.option("--jobs", type=click.IntRange(1), metavar="N", help="Number of parts under --on."),
    click.option("--no-wait", is_flag=True, help="Submit the parts and a job that joins them, and return."),
    click.option("--print", "print_only", is_flag=True, help="Print what would be submitted; submit nothing."),
    click.option("--partition", metavar="NAME", help="Slurm's partition."),
    click.option("--time", type=click.IntRange(1), default=60, show_default=True, metavar="MIN",
                 help="Minutes a job may take."),
    click.option("--mem", metavar="SIZE", help="Memory of a job; doubled where a job ran out of it."),
    click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="CPUs of a job."),
    click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs of a job."),
    click.option("--parallel", type=click.IntRange(1), metavar="N",
                 help="Jobs at a time.  [default: all; with --on local as many as there are cores for]"),
    click.option("--sbatch", multiple=True, metavar="KEY=VALUE", envvar="BNTOOLS_SBATCH",
                 help="Another option of sbatch; repeatable."),
    click.option("--retries", type=click.IntRange(0), default=2, show_default=True,
                 help="Further tries of a job that failed."),
    click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels the jobs; else they go on."),
]  # fmt: skip


def jobs(function: Callable[..., Any]) -> Callable[..., Any]:
    """--on and what goes with it; the callback, most often `dispatch.divided`, gets them as one `placement`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **given: Any) -> Any:
        placement = Placement(**{name: given.pop(name) for name in Placement._fields})
        return function(*args, placement=_checked(placement, given), **given)

    for option in reversed(_JOBS):
        wrapped = option(wrapped)
    return wrapped


def _checked(placement: Placement, given: dict[str, Any]) -> Placement:
    """Refuse what makes no sense together; BNTOOLS_ON alone asks for nothing."""
    source = click.get_current_context().get_parameter_source
    named = source("on") == click.core.ParameterSource.COMMANDLINE
    if placement.jobs is None:
        if named:
            raise usage("--on needs --jobs", f"--on {placement.on} --jobs 8 --work run/")
        for name in Placement._fields:
            if name != "on" and source(name) == click.core.ParameterSource.COMMANDLINE:
                option = "--print" if name == "print_only" else f"--{name.replace('_', '-')}"
                raise usage(f"{option} needs --on and --jobs", "--on slurm --jobs 8 --work run/")
        return Placement()
    if placement.on is None:
        raise usage("--jobs needs --on", f"--on slurm --jobs {placement.jobs} --work run/")
    if given.get("shard") or given.get("gather"):
        raise usage("--on makes and joins the parts itself", "drop --shard or --gather, or drop --on")
    if not given.get("work"):
        raise usage("--on needs a folder for the parts", "add --work run/")
    return placement
