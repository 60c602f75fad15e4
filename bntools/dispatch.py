"""A command in parts: submit them, wait, and join them by the command itself. bntools-jobs(7) has the protocol."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bntools import terminal
from bntools.core.errors import usage
from bntools.core.jobs.placement import Placement
from bntools.options import Session

if TYPE_CHECKING:
    from bntools.core.jobs.folder import RunFolder
    from bntools.core.jobs.plan import RunPlan

_ELSEWHERE = {"output", "force", "work", "shard", "gather", "plot", "quiet", "verbose", "json", "dry_run",
              *Placement._fields}  # fmt: skip
_NOT_DECIDING = {"threads"}
_SECOND = 3.0  # seconds in which a second Ctrl-C cancels the jobs


@dataclass(frozen=True)
class Division:
    """How a command divides.

    inputs: parameters that may name files; late: those that only the joining command needs; library: module to import
    before local tasks are forked; units: the command has a --work of its own; ledger: its parts share one. One that
    has neither keeps nothing there; it prints a report and writes only parts, or with `writes` what it makes.
    check: refuses parameters that do not go with parts.
    """

    inputs: tuple[str, ...] = ("source",)
    late: tuple[str, ...] = ()
    library: str = ""
    units: bool = False
    ledger: bool = False
    writes: bool = False
    check: Callable[[dict[str, Any]], None] = lambda given: None

    @property
    def keeps_nothing(self) -> bool:
        return not (self.units or self.ledger)


def divided(division: Division) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A callback that also runs in parts, under `options.jobs` and `options.common`, with --shard and --gather.

    The callback must write part I of N with `shard`, and with `gather` join the parts to what it gives undivided.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(session: Session, placement: Placement, **given: Any) -> Any:
            if placement.jobs is not None:
                return _run(division, function, session, placement, given)
            if division.keeps_nothing:
                _check_report(given, division.writes)
            return function(session=session, **given)

        return wrapped

    return decorate


def _check_report(given: dict[str, Any], writes: bool) -> None:
    """Refuse places for parts where there are none."""
    if given.pop("work") is not None:
        raise usage("--work is the folder of the parts of --on", "--on local --jobs 2, or drop --work")
    if given["output"] != "-" and not given["shard"] and not writes:
        raise usage("-o is for the part that --shard makes", "redirect the report: > FILE")


def _run(
    division: Division,
    function: Callable[..., Any],
    session: Session,
    placement: Placement,
    given: dict[str, Any],
) -> Any:
    """Everything under --on."""
    from bntools.core.jobs.folder import RunFolder

    began = time.monotonic()
    _check(placement)
    division.check(given if given.get("source") != "-" else {**given, "source": "standard input"})
    work, given = given["work"], dict(given)
    spooled = _spooled(work, given) if given.get("source") == "-" else None
    try:
        plan = _plan(division, session, placement, given, spooled)
        folder = RunFolder(work, plan)
        if session.dry_run or placement.print_only:
            folder.compare()
            return _preview(session, placement, folder)
        folder.claim()
    except BaseException:
        if spooled is not None:
            spooled[0].unlink(missing_ok=True)
        raise
    if spooled is not None:
        os.replace(*spooled)
    try:
        if placement.no_wait:
            return _leave(session, placement, folder, given)
        summary = _parts(division, session, placement, folder)
    finally:
        folder.close()
    joined = {"gather": True, "work": str(folder.path / "units")} if division.ledger else {
        "gather": (str(folder.path / "parts"),), **({"work": None} if division.units else {})
    }  # fmt: skip
    if division.keeps_nothing:
        given.pop("work")
    result = function(session=session, **given | joined)
    if not session.quiet:
        click.echo(json.dumps({"jobs": summary(began)}), err=True)
    return result


def _check(placement: Placement) -> None:
    """Refuse before anything is read or written."""
    from bntools.core.jobs import drive, script

    script.check_sbatch(placement.sbatch)
    drive.memory(placement)
    if placement.on == "slurm" and not placement.print_only:
        script.check()
    if placement.on == "local" and placement.no_wait:
        raise usage("--no-wait leaves jobs to a scheduler, and --on local has none", "drop --no-wait")


def _spooled(work: str, given: dict[str, Any]) -> tuple[Path, Path]:
    """Standard input as a file, beside its later name in the folder; INPUT is that name then."""
    from bntools.core.jobs import inputs

    folder = Path(os.path.abspath(work))
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".input-{os.getpid()}"
    inputs.spool(sys.stdin.buffer, temporary)
    target = folder / f"input{inputs.suffix(temporary)}"
    given["source"] = str(target)
    return temporary, target


def _plan(
    division: Division, session: Session, placement: Placement, given: Mapping[str, Any],
    spooled: tuple[Path, Path] | None,
) -> RunPlan:  # fmt: skip
    """The command line of the parts and what decides their result."""
    from bntools import __version__
    from bntools.core.jobs.inputs import fingerprint
    from bntools.core.jobs.plan import RunPlan

    context = click.get_current_context()
    left_out = _ELSEWHERE | set(division.late)
    values = {key: value for key, value in context.params.items() if key not in left_out | _NOT_DECIDING}
    named = {}
    for name in division.inputs:
        value = values.pop(name, None)
        texts = value if isinstance(value, tuple) else () if value is None else (value,)
        if name == "source" and spooled is not None:
            texts = (str(spooled[0]),)
        named[name] = [fingerprint(text) for text in texts]
    identity = {
        "version": __version__,
        "options": json.loads(json.dumps(values, default=str)),
        "inputs": named,
    }
    assert placement.jobs is not None
    return RunPlan(
        session.tool, tuple(_words(context, left_out, given.get("source"))), identity, placement.jobs, os.getcwd(),
        placement.cpus, division.units, division.ledger,
    )  # fmt: skip


def _words(context: click.Context, left_out: set[str], source: str | None) -> list[str]:
    """The command line as it was given, without some options, INPUT as it was found."""
    raw, _, _ = context.command.make_parser(context).parse_args(list(sys.argv[2:]))
    words = [] if source is None else [source]
    for argument in context.command.params:  # further positional words, behind INPUT
        if isinstance(argument, click.Argument) and argument.nargs == -1 and argument.name not in left_out:
            further = raw.get(argument.name)
            words += [str(word) for word in further] if isinstance(further, (list, tuple)) else []
    for parameter in context.command.params:
        if parameter.name in left_out or parameter.name not in raw or not isinstance(parameter, click.Option):
            continue
        value, long = raw[parameter.name], max(parameter.opts, key=len)
        if parameter.count:
            words += [long] * int(value)
        elif parameter.is_flag:
            words.append(long if value or not parameter.secondary_opts else parameter.secondary_opts[0])
        else:
            words += [f"{long}={one}" for one in (value if parameter.multiple else (value,))]
    return words


def _engine(division: Division, session: Session, placement: Placement, folder: RunFolder) -> Any:
    if placement.on == "slurm":
        from bntools.core.jobs.slurm import Slurm

        return Slurm(folder, placement, lambda text: terminal.note(session, text))
    from bntools.core.jobs.local import Local
    from bntools.core.jobs.task import THREADS

    for name in THREADS:  # before numpy and torch are imported, here as in the tasks
        os.environ.setdefault(name, str(placement.cpus))
    if division.library:
        importlib.import_module(division.library)
    main = click.get_current_context().find_root().obj or _called
    cores = len(os.sched_getaffinity(0))
    return Local(folder, main, placement.parallel or max(1, cores // placement.cpus))


def _called(words: list[str]) -> int:
    """A command line as a process of its own, where this command was not begun by `bntools.cli`."""
    import subprocess

    return subprocess.run([sys.executable, "-m", "bntools", *words], check=False).returncode


def _parts(
    division: Division, session: Session, placement: Placement, folder: RunFolder
) -> Callable[[float], dict[str, Any]]:
    """Make all parts; returns a function that says what they took."""
    from bntools.core.jobs.drive import Drive

    def note(text: str) -> None:
        terminal.note(session, text)

    missing = folder.missing()
    engine = _engine(division, session, placement, folder) if missing else None
    if engine is None:
        return lambda began: {"array": [], "retries": 0, "seconds": 0.0, "cpu_seconds": 0.0, "restarts": 0}
    drive = Drive(folder, engine, placement, note)
    try:
        with terminal.progress(session, "parts", folder.plan.jobs) as advance:
            advance(folder.plan.jobs - len(missing))
            drive.start(missing)
            drive.wait(missing, advance)
    except KeyboardInterrupt:
        _interrupted(session, placement, engine, folder)
    folder.sweep()
    return drive.summary


def _interrupted(session: Session, placement: Placement, engine: Any, folder: RunFolder) -> NoReturn:
    """Ctrl-C: the jobs go on, unless it is pressed again."""
    ids = " ".join(engine.ids)
    if ids and not placement.cancel_on_interrupt:
        terminal.note(
            session, f"jobs {ids} go on, and the same command waits for them again; Ctrl-C now cancels them"
        )
        try:
            time.sleep(_SECOND)
        except KeyboardInterrupt:
            placement = placement._replace(cancel_on_interrupt=True)
    if not ids or placement.cancel_on_interrupt:
        engine.cancel()
        terminal.note(session, f"jobs cancelled; the same command goes on from the parts in {folder.path}")
    raise KeyboardInterrupt


def _leave(session: Session, placement: Placement, folder: RunFolder, given: Mapping[str, Any]) -> None:
    """--no-wait: arrays and a job that joins, and one line that names them."""
    from bntools.core.jobs.drive import Drive, describe
    from bntools.core.jobs.slurm import Slurm

    missing = folder.missing()
    engine = Slurm(folder, placement, lambda text: terminal.note(session, text))
    Drive(folder, engine, placement, lambda text: None).start(missing)
    words = _words(
        click.get_current_context(), {"shard", "gather", "work", *Placement._fields}, given.get("source")
    )
    place = ["--gather", "--work", f"{folder.path}/units"] if folder.plan.ledger else [
        "--gather", f"{folder.path}/parts"]  # fmt: skip
    engine.submit_gather([session.tool, *words, *place])
    click.echo(json.dumps(describe(folder, missing)))


def _preview(session: Session, placement: Placement, folder: RunFolder) -> None:
    """--print and --dry-run: nothing is submitted or written."""
    from bntools.core.jobs.drive import describe, memory
    from bntools.core.jobs.slurm import Slurm

    missing = [index for index in range(folder.plan.jobs) if index not in folder.done([index])]
    if not placement.print_only:
        click.echo(json.dumps(describe(folder, missing)))
    elif placement.on == "local":
        click.echo("\n".join(folder.plan.by_hand(index, str(folder.path)) for index in missing))
    else:
        click.echo(Slurm(folder, placement, lambda text: None).scripts(missing, memory(placement)))
