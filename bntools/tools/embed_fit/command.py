"""bntools embed-fit: read the table, fit, show, write the artifact."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import dispatch, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools embed-fit ratings.csv --target rating --at-least 4 --fields userId,movieId -o table.safetensors
  bntools embed-fit clicks.csv --target click --method spectral,unified,hash --budget 1/2..1/32 --pareto p.svg
"""


def _check_parts(given: dict[str, Any]) -> None:
    if given["output"] != "-":
        raise usage("-o writes one fitted table, and parts write outputs", "drop -o, or --on")


@click.command("embed-fit", short_help="Fit embedding tables as small as they can be.", epilog=EPILOG)
@options.input_argument(example="bntools embed-fit ratings.csv --target rating --at-least 4")
@click.option("--target", required=True, metavar="COLUMN", help="The outcome: 0/1, or a number.")
@click.option("--at-least", type=float, metavar="X", help="The outcome is whether the target is at least X.")
@click.option("--task", type=click.Choice(["auto", "binary", "regression"]), default="auto", show_default=True,
              help="auto: binary, and numbers are refused.")  # fmt: skip
@click.option("--fields", default="", metavar="A,B", help="Columns to embed.  [default: all but the target]")
@click.option("--method", default="full", show_default=True, metavar="NAME[,NAME...]",
              help="full, spectral, unified, hash, qr, mde, robe, prune, pep, dnis, ihas.")  # fmt: skip
@click.option("--budget", metavar="SHARE", help="Share of the full table's numbers: 1/8, a list, or 1/2..1/32 by "
              "halves.  [default: 1/8; all of it for full alone]")  # fmt: skip
@click.option("--model", type=click.Choice(["dcn", "fm", "mf"]), default="dcn", show_default=True,
              help="What is made of the vectors.")  # fmt: skip
@click.option(
    "--dim", type=click.IntRange(1, 256), default=16, show_default=True, help="Numbers a value, full table."
)
@click.option("--bits", type=click.Choice(["32", "8", "4"]), default="32", show_default=True,
              help="Bits a number of spectral.")  # fmt: skip
@click.option("--split", default="random", show_default=True, metavar="random|time:COL|column:COL|FILE",
              help="What is tested on.")  # fmt: skip
@click.option(
    "--splits", type=click.IntRange(1), default=1, show_default=True, help="Random splits to average."
)
@click.option(
    "--lambda", "lambda_", type=click.FloatRange(0), help="Weight of the prior.  [default: tuned for each]"
)
@click.option("--no-baseline", is_flag=True, help="Do not fit the small full table.")
@click.option(
    "--chunk", type=click.IntRange(1), default=4, show_default=True, help="Numbers a lookup of unified, robe."
)
@click.option("--groups", type=click.IntRange(1, 16), default=3, show_default=True, help="Groups of ihas.")
@click.option("--share-table", is_flag=True, help="ihas: one table for all groups.")
@click.option("--alpha-rate", type=click.FloatRange(0, min_open=True), default=0.001, show_default=True,
              help="Rate of the factors of dnis.")  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=2e-3, show_default=True, help="Adam's rate."
)
@click.option("--batch", type=click.IntRange(1), default=2048, show_default=True, help="Rows a step.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Epochs at most.")
@click.option("--patience", type=click.IntRange(1), default=2, show_default=True,
              help="Epochs without improvement that end a fit.")  # fmt: skip
@click.option("--pareto", "plot", metavar="FILE", help="Draw the measure against bytes: .svg, .png or .pdf.")
@options.run_folder
@options.shard
@options.output
@options.jobs
@options.common
@dispatch.divided(dispatch.Division(late=("plot",), library="bntools.tools.embed_fit.parts", units=True,
                                    check=_check_parts))  # fmt: skip
def command(session: Session, source: str, output: str, force: bool, plot: str | None, target: str,
            **given: Any) -> None:  # fmt: skip
    """Fit embedding tables of the columns of INPUT that predict --target, and measure what a smaller one loses.

    INPUT is csv, JSON lines, parquet, .npy, .npz or safetensors; - is standard input.
    """
    shard, gather = given.pop("shard"), given.pop("gather")
    if given.pop("work") is not None:
        raise usage("--work is the folder of the parts of --on", "--on local --jobs 2, or drop --work")
    settings = _settings(session, given)
    _check(settings, output, force, (shard, gather, session.dry_run))
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    from bntools.core.datasets.tables import open_table
    from bntools.tools.embed_fit.problem import read
    from bntools.tools.embed_fit.sweep import Sweep

    progress = functools.partial(terminal.progress, session)
    with open_table(source) as table:
        data = read(table, target, settings)
    if session.dry_run:
        return _plan(session, data, settings)
    session.apply()
    if shard:
        from bntools.tools.embed_fit import parts

        return terminal.manifest(parts.write(Sweep(data, settings), shard, (output, force), progress))
    report, runs = _report(data, settings, gather, progress)
    return _finish(session, (report, runs), (source, target), output, (force, plot))


def _settings(session: Session, given: dict[str, Any]) -> Any:
    from bntools.core.methods.embedding.shares import parse_budgets
    from bntools.tools.embed_fit.settings import Settings

    names = tuple(dict.fromkeys(n.strip() for n in given.pop("fields").split(",") if n.strip()))
    methods = tuple(dict.fromkeys(n.strip() for n in given.pop("method").split(",") if n.strip()))
    text = given.pop("budget") or ("1" if methods == ("full",) else "1/8")
    budgets, bits = parse_budgets(text), int(given.pop("bits"))
    baseline = not given.pop("no_baseline")
    return Settings(methods=methods, budgets=budgets, bits=bits, fields=names, baseline=baseline, seed=session.seed,
                    **given)  # fmt: skip


def _check(settings: Any, output: str, force: bool, how: tuple[Any, Any, bool]) -> None:
    """Refuse before anything is read."""
    from bntools.core.artifact.targets import check_target

    shard, gather, dry = how
    if settings.split.startswith("time:") and settings.splits > 1:
        raise usage("a split by time is one split", "drop --splits")
    if output != "-" and not shard:
        if gather:
            raise usage("-o writes one fitted table, and parts hold none", "drop -o, or --gather")
        if len(settings.methods) * len(settings.budgets) > 1:
            raise usage("-o writes one table", "name one --method and one --budget")
        if settings.methods == ("ihas",):
            raise usage("ihas is measured, not written: it is several models and a gate", "drop -o")
        if settings.splits > 1:
            raise usage("-o writes the table of one split", "drop --splits")
    if (output != "-" or shard) and not dry:
        check_target(output, force)


def _report(data: Any, settings: Any, gather: Any, progress: Any) -> tuple[dict[str, Any], Any]:
    from bntools.tools.embed_fit import report
    from bntools.tools.embed_fit.sweep import Sweep

    if not gather:
        return report.embed_fit(data, settings, progress)
    from bntools.tools.embed_fit import parts

    sweep = Sweep(data, settings)
    runs = parts.read(sweep, gather)
    return report.report(sweep, runs), runs


def _finish(
    session: Session, made: tuple[dict[str, Any], Any], where: tuple[str, str], output: str, how: Any
) -> None:
    from bntools.tools.embed_fit import show

    report, runs = made
    for text in show.notes(report):
        terminal.note(session, text)
    if how[1] is not None:
        from bntools.core.report import pictures

        pictures.save(show.figure(report), how[1])
    if output != "-":
        from bntools.tools.embed_fit.write import save

        report = {**(save(report, runs, where, (output, how[0]), session) or {}), **report, "bntools": 1}
    terminal.emit(session, report, lambda console: show.draw(console, report))


def _plan(session: Session, data: Any, settings: Any) -> None:
    from bntools.tools.embed_fit.cost import plan

    report = plan(data, settings)
    rows = [[f["name"], f"{f['values']:,}", terminal.megabytes(f["bytes"])] for f in report["fields"]]
    rows += [[f"all, {b['budget_name']}", "", terminal.megabytes(b["bytes"])] for b in report["budgets"]]
    rows += [
        ["memory, about", "", terminal.megabytes(report["memory_bytes"])],
        ["fits", f"{report['fits']:,}", ""],
    ]
    terminal.emit(
        session, report, lambda console: console.print(terminal.table(["field", "values", "bytes"], rows))
    )
