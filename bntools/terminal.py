"""What a person sees: notes and progress on standard error, a table or JSON on standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from bntools.core.progress import Step, no_step
from bntools.options import Session


def note(session: Session, text: str) -> None:
    """A message the user may want, unless asked to be quiet."""
    if text and not session.quiet:
        click.echo(f"bntools {session.tool}: {text}", err=True)


def note_left_behind(session: Session, model: Any) -> None:
    """Name the files beside a model that do not travel with it."""
    from bntools.core.model import side_files

    left = side_files.left_behind(model.path) if model.path is not None and model.path.is_dir() else []
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        note(session, f"not taken along: {', '.join(left[:3])}{more}")


def detail(session: Session, text: str) -> None:
    """A message for -v."""
    if session.verbose and not session.quiet:
        click.echo(f"bntools {session.tool}: {text}", err=True)


@contextlib.contextmanager
def progress(session: Session, what: str, total: int) -> Iterator[Step]:
    """A bar with the time left on a terminal's standard error; elsewhere nothing. Appears after a second."""
    if session.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or total <= 0:
        yield no_step
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
    task = bar.add_task(what, total=total)
    began = time.monotonic()

    def advance(count: int) -> None:
        bar.advance(task, count)
        if not bar.live.is_started and time.monotonic() - began > 1:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()


def emit(session: Session, report: dict[str, Any], draw: Callable[[Any], None]) -> None:
    """Print a report: JSON to a pipe or with --json, else what `draw` puts on a rich console."""
    if session.json or not sys.stdout.isatty():
        import json

        click.echo(json.dumps(report))
        return
    draw(console())


def manifest(description: dict[str, Any] | None) -> None:
    """Print the manifest of what was written to a path, for the next command of a pipeline."""
    if description is not None:
        import json

        click.echo(json.dumps(description))


def console(stderr: bool = False) -> Any:
    """A rich console no wider than 100 columns, which honours NO_COLOR and TERM=dumb."""
    from rich.console import Console

    made_console = Console(highlight=False, markup=False, stderr=stderr)
    if made_console.width > 100:
        made_console.width = 100
    return made_console


def table(headers: list[str], rows: list[list[str]], title: str = "") -> Any:
    """A plain table: the first column left, the others right aligned."""
    from rich import box
    from rich.table import Table

    result = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(headers):
        result.add_column(
            header, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold"
        )
    for row in rows:
        result.add_row(*map(str, row))
    return result


def facts(title: str, rows: list[list[str]]) -> Any:
    """A table of names and values, long values wrapped."""
    result = table(["", title], rows)
    result.columns[0].no_wrap, result.columns[1].no_wrap = True, False
    result.columns[1].justify = "left"
    return result


def three(value: float | None) -> str:
    """Three significant digits, without an exponent where a person would write none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.0f}" if size >= 99.95 else f"{value:#.3g}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} B"
