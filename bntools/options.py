"""Options that mean the same in every tool, and the session object they become."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bntools.core.errors import usage
from bntools.job_options import PLACE_FLAGS, PLACES, jobs
from bntools.sections import COMMON, Sectioned, by_section, section

if TYPE_CHECKING:
    import torch

__all__ = ["COMMON", "Sectioned", "by_section", "jobs", "section"]  # beside what is defined here
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Session(NamedTuple):
    """What every tool is told besides its own options. A named tuple: dataclasses would add to the cost of --help."""

    tool: str
    seed: int
    device: str
    threads: int | None
    quiet: bool
    verbose: int
    json: bool
    dry_run: bool
    started: float

    def apply(self) -> None:
        """Set torch's threads and seed."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)

    def torch_device(self) -> str:
        """`cpu`, `cuda`, ...: `auto` is the GPU where there is one."""
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise usage(f"--device {self.device} is not auto, cpu, cuda or cuda:N", "--device auto")
        if ":" in self.device and int(self.device[5:]) >= max(torch.cuda.device_count(), 1):
            raise usage(
                f"--device {self.device}: torch sees {torch.cuda.device_count()} GPUs", "--device auto"
            )
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise usage(f"--device {self.device}: torch sees no GPU", "--device cpu")
        return self.device


_COMMON = [
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        envvar="BNTOOLS_SEED",
        help="Seed of everything random.",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        envvar="BNTOOLS_DEVICE",
        help="auto, cpu, cuda or cuda:N.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        envvar="BNTOOLS_THREADS",
        help="CPU threads.  [default: all cores]",
    ),
    click.option("-q", "--quiet", is_flag=True, envvar="BNTOOLS_QUIET", help="No progress and no notes."),
    click.option("-v", "--verbose", count=True, help="More notes on standard error."),
    click.option("--json", is_flag=True, envvar="BNTOOLS_JSON", help="Report as JSON also on a terminal."),
    click.option("--dry-run", is_flag=True, help="Say what would be read, written and spent; do nothing."),
]


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options; the callback gets them as one `session`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **given: Any) -> Any:
        shared = {name: given.pop(name) for name in Session._fields if name in given}
        session = Session(tool=str(click.get_current_context().info_name), started=time.time(), **shared)
        return function(*args, session=session, **given)

    for option in reversed(_COMMON):
        wrapped = option(wrapped)
    return wrapped


def device_file(command: click.Command) -> click.Command:
    """Of tools that price a machine and compute on none: --device names device files; `devices_named` opens them."""
    device = next(parameter for parameter in command.params if parameter.name == "device")
    assert isinstance(device, click.Option)
    device.help, device.metavar, device.envvar = "Device files, by name or path.", "NAME,...", None
    device.default, device.show_default = "auto", "none"
    return command


def devices_named(session: Session) -> list[Any]:
    """The device files of --device; none where it was not given."""
    from bntools.core.methods.devices import open_device

    names = session.device.split(",") if session.device != "auto" else []
    return [open_device(name) for name in names if name]


def input_argument(default: str | None = None, example: str = "") -> Decorator:
    """INPUT. Left out: standard input if something is connected to it, else `default`, else a usage error."""

    def resolve(context: click.Context, _: click.Parameter, value: str | None) -> str:
        if value is not None:
            return value
        if stdin_connected():
            return "-"
        if default is not None:
            return default
        hint = f"bntools {context.info_name} --help, or for example: {example}"
        raise usage("no INPUT, and nothing on standard input", hint)

    return click.argument("source", metavar="[INPUT]", required=False, callback=resolve)


def stdin_connected() -> bool:
    """Whether standard input is a pipe, socket or file rather than a terminal, /dev/null or closed."""
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def output(function: Callable[..., Any]) -> Callable[..., Any]:
    """-o/--output and --force."""
    function = click.option("-f", "--force", is_flag=True, help="Replace an existing output.")(function)
    return click.option(
        "-o", "--output", default="-", metavar="PATH", show_default="standard output",
        callback=not_empty, is_eager=True,
        help="A file, or DIR/ for a directory in Hugging Face layout.",
    )(function)  # fmt: skip


def not_empty(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A path that is not the empty word; for the options that name one."""
    if value == "":
        raise usage(
            f"{option.opts[0]} '' names no file",
            f"{option.opts[0]} PATH, or leave it out for standard output",
        )
    return value


def budget(function: Callable[..., Any]) -> Callable[..., Any]:
    """--budget of tools that read stacks; the callback gets `budget`, bytes or None."""
    return click.option(
        "--budget",
        metavar="SIZE",
        callback=_budget,
        help="Of a stack, read so many bytes at most: 90MB, 86MiB.",
    )(function)


def _budget(context: click.Context, _: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from bntools.core.system.sizes import parse_bytes

    return parse_bytes(value)


def work(function: Callable[..., Any]) -> Callable[..., Any]:
    """--work of tools whose run can be continued; the callback gets `work`, a path or None."""
    return click.option(
        "--work",
        type=click.Path(),
        metavar="DIR",
        help="Keep finished parts in DIR; the same command goes on from them.",
    )(function)


def shard(function: Callable[..., Any]) -> Callable[..., Any]:
    """--shard and --gather of tools whose work divides; the callback gets `shard`, I/N or None, and `gather`."""
    function = click.option(
        "--gather",
        multiple=True,
        type=click.Path(exists=True),
        metavar="PATH",
        callback=_gather,
        help="Join the parts that --shard wrote: files, or folders of them.",
    )(function)
    return part(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """--shard alone, of tools whose parts meet in --work; the callback gets `shard`, I/N or None."""
    return click.option(
        "--shard", metavar="I/N", callback=_shard, help="Do and write part I of N only, I from 0 to N - 1."
    )(function)


def part_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """-o of tools that print a report and write only parts."""
    return click.option(
        "-o", "--output", default="-", metavar="PATH", show_default="standard output",
        callback=not_empty, is_eager=True,
        help="Where --shard writes its part.",
    )(function)  # fmt: skip


def part_force(function: Callable[..., Any]) -> Callable[..., Any]:
    """--force that goes with it."""
    return click.option("-f", "--force", is_flag=True, help="Replace an existing part.")(function)


def run_folder(function: Callable[..., Any]) -> Callable[..., Any]:
    """--work of tools that keep nothing there but the parts of --on."""
    return click.option(
        "--work", type=click.Path(), metavar="DIR", help="With --on: the folder of the parts."
    )(function)


def _shard(context: click.Context, _: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    from bntools.core.work.shards import Shard

    _either(context, "gather")
    return Shard.parse(value)


def _gather(context: click.Context, _: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        _either(context, "shard")
    return value


def _either(context: click.Context, other: str) -> None:
    if context.params.get(other):
        raise usage("--shard makes a part, --gather joins them", "give one of them")


def dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    """--dtype of the arithmetic."""
    choice = click.Choice(["float32", "bfloat16", "float16"])
    return click.option(
        "--dtype",
        type=choice,
        default="float32",
        show_default=True,
        envvar="BNTOOLS_DTYPE",
        help="Type of the forward pass.",
    )(function)


def torch_dtype(name: str) -> torch.dtype:
    import torch

    return getattr(torch, name)


def argv() -> list[str]:
    """The command line as the history records it, without what only says where and in how many parts it ran."""
    words = iter(["bntools", *sys.argv[1:]])
    kept = []
    for word in words:
        if word in PLACES:
            next(words, None)
        elif word not in PLACE_FLAGS and not word.startswith(tuple(f"{place}=" for place in PLACES)):
            kept.append(word)
    return kept
