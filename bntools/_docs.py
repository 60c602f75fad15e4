"""Keep man pages and completions equal to the commands: `python -m bntools._docs [--check]`.

The OPTIONS section of each man page, between its two marker comments, and the completion scripts are generated from
the click commands; everything else in the pages is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from bntools.registry import COMMANDS
from bntools.sections import Sectioned, by_section

ROOT = Path(__file__).resolve().parent.parent
_LINE = 72  # letters that a line of a terminal of 80 holds
BEGIN, END = '.\\" options: begin', '.\\" options: end'
SHELLS = {"bash": "bntools.bash", "zsh": "_bntools", "fish": "bntools.fish"}


def escape(text: str) -> str:
    """Plain text as roff."""
    text = re.sub(r"\s+", " ", text).strip().replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def options_section(command: click.Command) -> str:
    """mdoc list of a command's options, each with its default; a list a heading where --help has headings."""
    if not isinstance(command, Sectioned):
        return _list(command, command.params)
    groups = by_section(command.params).items()
    return "\n".join(f".Ss {title}\n{_list(command, parameters)}" for title, parameters in groups)


def _list(command: click.Command, parameters: list[click.Parameter]) -> str:
    lines = [".Bl -tag -width Ds"]
    context = click.Context(command, info_name=command.name, auto_envvar_prefix=None)
    for parameter in parameters:
        if not isinstance(parameter, click.Option):
            continue
        record = parameter.get_help_record(context)
        if record is None:
            continue
        names, text = record
        shown = escape(names)
        if len(names) > _LINE:
            shown = shown.replace("|", "|\\:")  # where roff may break a line
        lines += [f".It Cm {shown}", escape(text)]
    return "\n".join([*lines, ".El"])


def man_page(text: str, command: click.Command) -> str:
    """The page with a fresh OPTIONS section; ValueError without the two markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the man page of {command.name} has no markers")
    return f"{head}{BEGIN}\n{options_section(command)}\n{END}{tail}"


def completion(shell: str) -> str:
    """click's own completion script."""
    from bntools.cli import bntools

    shell_class = get_completion_class(shell)
    assert shell_class is not None
    # bash's script asks bash for its version when it is made; the text itself is all we ship
    source = shell_class(bntools, {}, "bntools", "_BNTOOLS_COMPLETE")
    return (source.source_template % source.source_vars()).strip() + "\n"


def files() -> dict[Path, str]:
    """Every generated file with the content it should have."""
    wanted = {ROOT / "completions" / name: completion(shell) for shell, name in SHELLS.items()}
    for name, command in COMMANDS.items():
        page = ROOT / "man" / "man1" / f"bntools-{name}.1"
        wanted[page] = man_page(page.read_text(encoding="utf-8"), command)
    return wanted


def main() -> int:
    stale = [
        path
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(
                f"{path.relative_to(ROOT)} is not what the commands say: python -m bntools._docs",
                file=sys.stderr,
            )
        return bool(stale)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
