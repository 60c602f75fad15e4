"""The `bntools` command: the tools in groups, and one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn, cast

import click
from click.shell_completion import CompletionItem

from bntools import __version__
from bntools.core.errors import BROKEN_PIPE, FAILED, INTERRUPTED, MISSING, USAGE, BnError
from bntools.registry import COMMANDS, SECTIONS

_COMPLETE = "_BNTOOLS_COMPLETE"  # what click's scripts set when a shell asks
EPILOG = """\b
Examples:
  bntools quantize --per-ic --bits 3 | bntools eval
  bntools fetch smollm2 -o smollm2/
  bntools quantize smollm2/ --dim ada --bits 3 -o q.safetensors
"""


class DeadReader(Exception):
    """The reader of our output is gone. click would turn the BrokenPipeError itself into exit 1."""


class Toolbox(click.Group):
    """A group that lists its commands by what they are for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise DeadReader from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for section, tools in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), line) for name, line in tools.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None or _COMPLETE not in os.environ:
            return command
        from bntools.completion import complete_paths

        return complete_paths(command)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS.summaries[name]) for name in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=Toolbox,
    commands=cast("Any", COMMANDS),  # click asks it for names and single commands only
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "BNTOOLS",
        "max_content_width": 100,
    },
)
@click.version_option(__version__, message="bntools %(version)s")
def bntools() -> None:
    """Find, build, compress and measure the bottlenecks and dimensions of neural networks.

    Each tool reads and writes safetensors or JSON, so tools compose in pipelines.
    """


def main() -> NoReturn:
    """Entry point: run, and exit with the code that bntools(1) documents."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _terminate)
    if _COMPLETE in os.environ:
        from bntools import completion

        completion.install()
    sys.exit(run(sys.argv[1:]))


def _terminate(number: int, frame: FrameType | None) -> None:
    """End by an exception, so that temporary files are removed on the way out.

    While numba compiles, C code calls Python back and drops its exceptions: then it is tried again in a moment.
    """
    if _compiles(frame):
        signal.signal(signal.SIGALRM, lambda _, later: _terminate(number, later))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _compiles(frame: FrameType | None) -> bool:
    while frame is not None and "llvmlite" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Messages go to standard error."""
    try:
        if sys.stdout is None:
            raise BnError("standard output is closed", "2>&1 >/dev/null leaves it out")
        result = bntools.main(arguments, prog_name="bntools", standalone_mode=False, obj=run)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", _kept(arguments), INTERRUPTED)
    except (DeadReader, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing left to flush into the dead pipe
        return BROKEN_PIPE
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        return _click_error(error)
    except Exception as error:
        return _failure(error)


def _kept(arguments: list[str]) -> str:
    """What becomes of the finished parts of a run that was interrupted: a hint, none for tools of short work."""
    tool = next((word for word in arguments if word in COMMANDS), "")
    options = [name for option in COMMANDS[tool].params for name in option.opts] if tool else []
    if "--work" not in options:
        return ""
    if any(word.partition("=")[0] == "--work" for word in arguments) or os.environ.get(_work_variable(tool)):
        return "what was finished is kept: the same command goes on"
    return "--work DIR would have kept what was finished, for the same command to go on"


def _work_variable(tool: str) -> str:
    return f"BNTOOLS_{tool.replace('-', '_').upper()}_WORK"


def _click_error(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "bntools"
    return _say(error.format_message(), f"{path} --help", USAGE, path)


def _failure(error: Exception) -> int:
    if os.environ.get("BNTOOLS_DEBUG") not in (None, "", "0"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, BnError):
        return _say(error.what, error.hint, error.code)
    if isinstance(error, ModuleNotFoundError):
        return _say(f"{error.name} is not installed", f"pip install {error.name}", MISSING)
    if isinstance(error, OSError):
        name = f": {error.filename}" if error.filename else ""
        return _say(f"{error.strerror or error}{name}", "", FAILED)
    if isinstance(error, MemoryError):
        return _say("out of memory", "", FAILED)
    lines = str(error).splitlines()
    return _say(f"{type(error).__name__}: {lines[0] if lines else ''}", "BNTOOLS_DEBUG=1 shows where", FAILED)


def _say(what: str, hint: str, code: int, path: str = "") -> int:
    tool = next((word for word in sys.argv[1:] if word in COMMANDS), "")
    path = path or f"bntools {tool}".strip()
    click.echo(f"{path}: error: {what}" + (f"\nhint: {hint}" if hint else ""), err=True)
    return code
