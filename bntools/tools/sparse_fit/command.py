"""bntools sparse-fit: read the table, fit the path, show, write."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools sparse-fit best.safetensors --target y --penalty mcp -o path.safetensors --plot path.svg
  bntools screen wide.safetensors --target y | bntools sparse-fit - --target y | jq .selected
"""


@click.command("sparse-fit", short_help="Fit a sparse regression by SCAD, MCP or lasso.", epilog=EPILOG)
@options.input_argument(example="bntools sparse-fit table.csv --target y")
@click.option("--target", required=True, metavar="COLUMN", help="The column to be explained by the others.")
@click.option(
    "--penalty",
    type=click.Choice(["mcp", "scad", "lasso"]),
    default="mcp",
    show_default=True,
    help="The penalty.",
)
@click.option(
    "--family",
    type=click.Choice(["auto", "gaussian", "logistic", "poisson"]),
    default="auto",
    show_default=True,
    help="Law of the target; auto: logistic for two values.",
)
@click.option("--shape", type=float, help="Concavity: a of SCAD, gamma of MCP.  [default: 3.7, 3]")
@click.option(
    "--steps", type=click.IntRange(2, 1000), default=60, show_default=True, help="Penalties of the path."
)
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, True, True),
    help="Smallest penalty over the largest.  [default: 0.001, 0.05 with more columns than rows]",
)
@click.option(
    "--folds", type=click.IntRange(2, 100), default=10, show_default=True, help="Of the cross-validation."
)
@click.option(
    "--choose",
    type=click.Choice(["ebic", "cv"]),
    default="ebic",
    show_default=True,
    help="Which criterion chooses the step: extended BIC or cross-validation.",
)
@click.option(
    "--ebic-gamma",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Weight of the number of models; 0 is BIC.",
)
@click.option(
    "--solver",
    type=click.Choice(["cd", "ag"]),
    default="cd",
    show_default=True,
    help="Coordinate descent, or the accelerated gradient as published.",
)
@option_blocks.tensor("matrix")
@option_blocks.written("the path of coefficients here")
@option_blocks.replacing("output")
@option_blocks.plot("the path")
@options.common
def command(
    session: Session,
    source: str,
    output: str | None,
    force: bool,
    plot: str | None,
    tensor: str | None,
    **choices: Any,
) -> None:
    """Regress --target on the other columns of INPUT, most of them with coefficient 0.

    INPUT is csv, JSON lines, parquet, .npy, .npz or safetensors; - is standard input. Columns that are constant or have
    missing values are left out and counted.
    """
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    if output is not None:
        from bntools.core.artifact.targets import check_target

        check_target(output, force)
    from bntools.core.datasets.tables import open_table
    from bntools.tools.sparse_fit.design import read_design
    from bntools.tools.sparse_fit.fit import report as summarise
    from bntools.tools.sparse_fit.fit import sparse_fit
    from bntools.tools.sparse_fit.settings import Settings

    settings = Settings(**choices, seed=session.seed)
    with open_table(source, tensor) as table:
        table.position(settings.target)
        if session.dry_run:
            return _plan(session, table, settings)
        design = read_design(table, settings)
    for what, count in design.dropped.items():
        if count:
            terminal.note(session, f"{count:,} columns left out: {what}")
    fits = sparse_fit(design, settings, functools.partial(terminal.progress, session))
    report = summarise(design, settings, fits)
    if output is not None:
        report = _write(session, design, fits[settings.penalty], report, output, force)
    if plot is not None:
        from bntools.core.report import pictures
        from bntools.tools.sparse_fit.plot import figure

        pictures.save(figure(report, design, fits), plot)
    from bntools.tools.sparse_fit.table import draw

    return terminal.emit(session, report, lambda console: draw(console, report)) if output != "-" else None


def _write(
    session: Session, design: Any, fit: Any, report: dict[str, Any], output: str, force: bool
) -> dict[str, Any]:
    from bntools.core.artifact.writer import Writer
    from bntools.core.model import history
    from bntools.tools.sparse_fit.write import KIND, write

    with Writer(output, KIND, force=force) as out:
        write(out, design, fit)
        entry = history.entry("sparse-fit", options.argv(), session.seed, [], session.started)
        out.describe("history", [entry])
        out.describe("report", {**report, "path": [], "selected": report["selected"][:100]})
    written = out.manifest or {}
    return {
        **report,
        **{f"output_{key}": written[key] for key in ("path", "bytes", "sha256") if key in written},
    }


def _plan(session: Session, table: Any, settings: Any) -> None:
    cells = table.rows * len(table)
    report = {
        "kind": "plan", "rows": table.rows, "columns": len(table), "target": settings.target,
        "penalties": settings.steps, "fits": 2 * (settings.folds + 1), "memory_bytes": 3 * 8 * cells,
    }  # fmt: skip
    rows = [
        [key, f"{value:,}" if isinstance(value, int) else str(value)]
        for key, value in report.items()
        if key != "kind"
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
