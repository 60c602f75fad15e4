"""bntools mixed-fit: read the table, fit, show, write the report."""

from __future__ import annotations

import json
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools mixed-fit sleep.csv --target Reaction --fixed Days --random '1+Days|Subject'
  bntools mixed-fit sleep.csv --target Reaction --fixed Days --random '1+Days|Subject' --tails q -o fit.json
  bntools mixed-fit scores.csv --target y --fixed 'x+z' --random '1|school/class' --tails row
"""


@click.command("mixed-fit", short_help="Fit a mixed model with Gaussian or heavy tails.", epilog=EPILOG)
@options.input_argument(example="bntools mixed-fit table.csv --target y --fixed x --random '1|group'")
@click.option("--target", required=True, metavar="COLUMN", help="The quantity to be explained.")
@click.option(
    "--fixed",
    default="1",
    show_default=True,
    metavar="TERMS",
    help="Fixed effects: A+B, A:B; the intercept unless 0 is among them.",
)
@click.option(
    "--random",
    multiple=True,
    metavar="TERM",
    help="1|G, 1+X|G, 1|A/B for B within A; repeat for crossed groups.",
)
@click.option(
    "--tails",
    type=click.Choice(["gauss", "q", "row"]),
    default="gauss",
    show_default=True,
    help="Gaussian; a q-Gaussian for each group as a whole; t errors of each row.",
)
@click.option("--reml", is_flag=True, help="Restricted maximum likelihood, for Gaussian errors.")
@click.option("--nu", type=click.FloatRange(0.1, 1e9), help="Degrees of freedom.  [default: fitted]")
@click.option(
    "--solver",
    type=click.Choice(["bfgs", "ecme", "cg"]),
    default="bfgs",
    show_default=True,
    help="How --tails q climbs.",
)
@click.option(
    "--l1",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Penalty on the fixed effects, for --solver cg.",
)
@click.option("--effects", is_flag=True, help="Report the random effects of every group.")
@option_blocks.written("the report here as JSON", "FILE")
@option_blocks.replacing("output")
@option_blocks.plot("the random effects of the first term")
@options.common
def command(
    session: Session,
    source: str,
    output: str | None,
    force: bool,
    plot: str | None,
    effects: bool,
    **choices: Any,
) -> None:
    """Fit fixed effects and random effects of groups to --target.

    INPUT is a table: csv, JSON lines, parquet, .npy, .npz or safetensors; - is standard input. Rows where something is
    missing are left out and counted.
    """
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    if output not in (None, "-"):
        from bntools.core.artifact.targets import check_target

        check_target(output, force)
    from bntools.core.datasets.tables import open_table
    from bntools.tools.mixed_fit.data import read_data
    from bntools.tools.mixed_fit.fit import mixed_fit
    from bntools.tools.mixed_fit.report import report as summarise
    from bntools.tools.mixed_fit.settings import Settings

    settings = Settings(**choices)
    with open_table(source) as table:
        data = read_data(table, settings)
    if session.dry_run:
        return _plan(session, data, settings)
    if data.missing:
        terminal.note(session, f"{data.missing:,} rows left out: something is missing in them")
    fits = mixed_fit(data, settings)
    report = summarise(data, settings, fits, effects=effects)
    if report["singular"]:
        terminal.note(session, "warning: singular: a variance or a correlation stands at its bound")
    if output not in (None, "-"):
        _write(report, output, force)
    if plot is not None:
        from bntools.core.report import pictures
        from bntools.tools.mixed_fit.plot import figure

        pictures.save(figure(data, fits, settings), plot)
    from bntools.tools.mixed_fit.table import draw

    return terminal.emit(session, report, lambda console: draw(console, report))


def _write(report: dict[str, Any], output: str, force: bool) -> None:
    """The report under its name, whole or not at all."""
    import os
    from pathlib import Path

    from bntools.core.artifact.targets import publish, write_durably

    target = Path(os.path.realpath(output))
    temporary = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        write_durably(temporary, json.dumps(report, indent=1).encode() + b"\n")
        publish(temporary, target, force)
    finally:
        temporary.unlink(missing_ok=True)


def _plan(session: Session, data: Any, settings: Any) -> None:
    groups = {term.group: len(term.levels) for term in data.terms}
    report = {
        "kind": "plan", "rows": len(data.y), "rows_missing": data.missing, "fixed": data.names, "groups": groups,
        "tails": settings.tails,
    }  # fmt: skip
    rows = [[key.replace("_", " "), str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
