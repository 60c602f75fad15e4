"""bntools screen: read the table, score its columns, show, write the best."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import click

from bntools import dispatch, option_blocks, options, terminal
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools screen wide.safetensors --target y --fdr 0.1 --top 500 -o best.safetensors
  bntools screen genes.csv --target tissue --plot p.svg
  bntools screen wide.npy --target 0 | bntools sparse-fit - --target x.0 | jq .selected
"""

_NOTES = {
    "constant": "left out as constant",
    "text": "left out as text",
    "with_missing": "with missing values, scored on the rows where they are known",
}


@click.command("screen", short_help="Find the columns that say something about one.", epilog=EPILOG)
@options.input_argument(example="bntools screen wide.csv --target y")
@click.option("--target", required=True, metavar="COLUMN", help="The column the others are scored against.")
@click.option(
    "--method",
    type=click.Choice(["auto", "kde", "bins", "knn", "xi", "pearson", "fftkde"]),
    default="auto",
    show_default=True,
    help="The statistic; auto: kernel mutual information at two bandwidths.",
)
@click.option(
    "--outcome",
    type=click.Choice(["auto", "class", "continuous"]),
    default="auto",
    show_default=True,
    help="What the target is.",
)
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, True, True),
    help="Write what is selected at this false discovery rate.  [default: 0.1, only reported]",
)
@click.option("--top", type=click.IntRange(1), help="Write so many columns at most.  [default: n / ln n]")
@click.option(
    "--control",
    type=click.Choice(["bh", "by", "shadow"]),
    default="bh",
    show_default=True,
    help="Benjamini-Hochberg, Benjamini-Yekutieli, or permuted copies in the manner of knock-offs.",
)
@click.option("--covariates", default="", metavar="A,B", help="Columns whose effect is taken out first.")
@click.option(
    "--permutations",
    type=click.IntRange(1000),
    help="Random orders of the common null.  [default: 50,000]",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(0.3, 4),
    default=1.0,
    show_default=True,
    help="Of the kernel, in units of 1.06 n^-1/5.",
)
@click.option(
    "--bins", type=click.IntRange(2, 64), help="Bins of --method bins.  [default: 4, with classes 6]"
)
@click.option(
    "--neighbours", type=click.IntRange(1, 50), default=3, show_default=True, help="Of --method knn."
)
@option_blocks.tensor("matrix")
@option_blocks.plot("the ordered p-values")
@options.output
@options.run_folder
@options.shard
@options.jobs
@options.common
@dispatch.divided(dispatch.Division(library="bntools.tools.screen.parts", writes=True))
def command(
    session: Session, source: str, output: str, force: bool, plot: str | None, tensor: str | None,
    shard: Any, gather: tuple[str, ...], **choices: Any,
) -> None:  # fmt: skip
    """Score every numeric column of INPUT by how much it tells about --target, and pass on the best.

    INPUT is csv, JSON lines, parquet, .npy, .npz or safetensors, wider than memory if need be; - is standard input.
    The table goes to a pipe or to -o; a report to a terminal, and to standard output beside -o or with --json.
    """
    pipe = output == "-" and not session.json and not session.dry_run and not sys.stdout.isatty()
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    if pipe or output != "-":
        from bntools.core.artifact.targets import check_target

        check_target(output, force)
    from bntools.core.datasets.tables import open_table
    from bntools.tools.screen.settings import Settings

    names = tuple(name.strip() for name in choices.pop("covariates").split(",") if name.strip())
    threads = session.threads or os.cpu_count() or 1
    settings = Settings(**choices, covariates=names, seed=session.seed, threads=threads)
    with open_table(source, tensor) as table:
        table.position(settings.target)
        if session.dry_run:
            return _plan(session, table, settings)
        if shard:
            from bntools.tools.screen import parts

            progress = functools.partial(terminal.progress, session)
            return terminal.manifest(parts.write(table, settings, shard, (output, force), progress))
        report, result = _screen(session, table, settings, gather)
        if pipe or output != "-":
            report = _write(session, table, settings, (report, result), output, force)
    if plot is not None:
        from bntools.core.report import pictures
        from bntools.tools.screen.plot import figure

        pictures.save(figure(report, result.scored.p, result.linear), plot)
    if pipe:
        return None
    from bntools.tools.screen.table import draw

    return terminal.emit(session, report, lambda console: draw(console, report))


def _screen(
    session: Session, table: Any, settings: Any, gather: tuple[str, ...]
) -> tuple[dict[str, Any], Any]:
    from bntools.tools.screen import parts
    from bntools.tools.screen.report import report
    from bntools.tools.screen.run import screen

    progress = functools.partial(terminal.progress, session)
    result = parts.read(gather, table, settings) if gather else screen(table, settings, progress)
    summary = report(table, settings, result)
    for key, what in _NOTES.items():
        if summary["columns"][key]:
            terminal.note(session, f"{what}: {summary['columns'][key]:,} columns")
    return summary, result


def _write(
    session: Session, table: Any, settings: Any, outcome: tuple[dict[str, Any], Any], output: str, force: bool
) -> dict[str, Any]:
    from bntools.core.artifact.writer import Writer
    from bntools.core.model import history
    from bntools.tools.screen.write import write

    report, result = outcome
    with Writer(output, "table", force=force) as out:
        write(out, table, settings, result)
        entry = history.entry(
            "screen", options.argv(), session.seed, [{"label": table.label}], session.started
        )
        out.describe("history", [entry])
        out.describe("report", {**report, "best": report["best"][:20]})
    return report if out.manifest is None else {**out.manifest, **report, "bntools": 1}


def _plan(session: Session, table: Any, settings: Any) -> None:
    from bntools.tools.screen.cost import plan

    report = plan(table, settings)
    rows = [
        [key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)]
        for key, value in report.items()
        if key != "kind"
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
