"""bntools data-mix: read runs or make them, fit, decide, show, draw."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import click

from bntools import dispatch, option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools data-mix runs.jsonl --at 1e6 --plot mix.svg
  bntools data-mix runs.csv --at 1e6 --next 4 --max web=0.3
  bntools data-mix sources/ --val val.safetensors --sizes 500,1000,2000 --runs 24 --at 20000 --work pilots/
  bntools data-mix sources/ --train 'python train.py --data {data} --out {metrics}' --at 1e6 --work pilots/
"""


def _sizes(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(float(word)) for word in value.split(",")}))
    except (ValueError, OverflowError):
        sizes = ()
    if not sizes or sizes[0] < 1:
        raise usage(f"--sizes {value} is not numbers of rows", "--sizes 500,1000,2000")
    return sizes


@click.command("data-mix", short_help="Predict what a mixture of data gives, and choose it.", epilog=EPILOG)
@options.input_argument(example="bntools data-mix runs.jsonl --at 1e6")
@click.argument("more", metavar="[SOURCE]...", nargs=-1)
@click.option("--at", type=click.FloatRange(0, min_open=True), metavar="N",
              help="Rows or tokens to predict for.  [default: the largest run]")  # fmt: skip
@click.option("--max", "caps", multiple=True, metavar="SOURCE=W", help="No more weight than W; repeatable.")
@click.option("--prices", metavar="FILE|S=P,...", help="Price of a row by source, 1 where not named.")
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    help="What the rows may cost; without --at all of it is spent.",
)
@click.option(
    "--next",
    "following",
    type=click.IntRange(0, 100),
    default=0,
    metavar="K",
    help="Propose the K runs most worth making.",
)
@click.option("--min-gain", "least_gain", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Propose no run of less expected gain.")  # fmt: skip
@click.option("--method", "methods", default="joint", show_default=True, metavar="NAME,...",
              help="joint, projektor, exp, regmix or bimix; the first one answers.")  # fmt: skip
@click.option("--compare", is_flag=True, help="The published methods beside the answer.")
@click.option("--slope", type=float, help="Assume metric ~ N^-SLOPE, for runs of one size.")
@click.option(
    "--kind",
    type=click.Choice(["error", "accuracy", "loss", "score"]),
    help="What the metric is, where lines do not say.",
)
@click.option("--higher-is-better", "higher", is_flag=True, help="A metric without a kind is a score.")
@click.option("--normalize", is_flag=True, help="Accept counts as weights.")
@click.option("--allow-failed", is_flag=True, help="Leave out runs without a metric.")
@click.option("--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.9, show_default=True,
              help="Probability content of the intervals.")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0, 1), show_default="0.8; few mixtures: 0.95",
              help="Leave the best pilot only for a mixture better with this probability.")  # fmt: skip
@click.option("--val", metavar="FILE", help="Validation rows with labels, for the built-in heads.")
@click.option(
    "--head",
    type=click.Choice(["logistic", "mlp", "ridge"]),
    default="logistic",
    show_default=True,
    help="Built-in model on features.",
)
@click.option("--l2", type=click.FloatRange(0), help="Its penalty.  [default: by cross-validation; mlp: 10]")
@click.option(
    "--score", type=click.Choice(["error", "loss"]), default="error", show_default=True, help="Its metric."
)
@click.option(
    "--train", metavar="COMMAND", help="Train by a command with {data}, and {seed}, {n}, {metrics} if wanted."
)
@click.option(
    "--sizes",
    default="500,1000,2000",
    show_default=True,
    callback=_sizes,
    metavar="N,N,...",
    help="Sizes of the pilots.",
)
@click.option(
    "--runs", type=click.IntRange(3), default=24, show_default=True, help="Mixtures, each run at every size."
)
@click.option(
    "--transport",
    is_flag=True,
    help="Optimal transport to the validation rows, for projektor and as an input of joint.",
)
@click.option(
    "--label-cost",
    type=click.Choice(["means", "gaussian"]),
    default="means",
    show_default=True,
    help="Of --transport: distance of classes.",
)
@option_blocks.plot("mixtures and the curve over N")
@options.work
@options.part
@click.option("--gather", is_flag=True, help="Report what all shards left in --work.")
@options.jobs
@options.common
@dispatch.divided(
    dispatch.Division(
        ("source", "more", "val"),
        ("at", "caps", "prices", "budget", "following", "least_gain", "methods", "compare", "slope", "level",
         "confidence", "transport", "label_cost"),
        "bntools.tools.data_mix.work", ledger=True, check=lambda given: _check_parts(given),
    )
)  # fmt: skip
def command(session: Session, source: str, more: tuple[str, ...], **given: Any) -> None:
    """Fit one law over mixture and size to runs, and choose the mixture that is best at another size.

    INPUT is a table of runs, .jsonl or .csv, or - for standard input: weights by source, n and metric. Or it is the
    sources themselves, a folder or files with features x and classes y; pilot runs are then made first.
    """
    if "numpy" not in sys.modules:
        os.environ.setdefault(
            "OPENBLAS_NUM_THREADS", "1"
        )  # small matrices, and the same sums on every machine
    from bntools.tools.data_mix import work
    from bntools.tools.data_mix.runs.read import is_table

    if given["plot"]:
        from bntools.core.report import pictures

        pictures.check(given["plot"])
    settings = work.settings_of(given, session.seed)
    if is_table(source):
        _check_table(given, more)
        runs, known = work.table(source, given), None
        if session.dry_run:
            return _plan(session, {"runs": len(runs), "sources": len(runs.sources), "sizes": len(runs.sizes)})
    else:
        job = work.pilots((source, *more), given, session.seed)
        if session.dry_run:
            return _plan(session, job.cost())
        total = len(job.pilots)
        with terminal.progress(session, "pilots", total) as advance:
            if given["shard"]:
                return terminal.emit(session, job.part(given["shard"], advance), lambda console: None)
            runs = job.runs(advance, made=given["gather"])
        known = job.known()
    report = work.report(runs, settings, known)
    for warning in report["warnings"]:
        terminal.note(session, f"warning: {warning['text']}")
    if given["plot"]:
        work.draw(runs, settings, known, report, given["plot"])
    from bntools.tools.data_mix.table import draw

    return terminal.emit(session, report, functools.partial(draw, report=report))


def _check_parts(given: dict[str, Any]) -> None:
    from bntools.tools.data_mix.runs.read import is_table

    if is_table(given["source"] or "-"):
        raise usage("a table of runs is fitted at once, in no parts", "drop --on and --jobs")


def _check_table(given: dict[str, Any], more: tuple[str, ...]) -> None:
    """Refuse options of pilots beside a table."""
    if more:
        raise usage(f"{more[0]} beside a table of runs", "one table, or a folder or files of sources")
    for name in ("val", "train", "work", "shard", "gather", "transport"):
        if given[name]:
            raise usage(
                f"--{name} goes with sources, and INPUT is a table of runs", "name a folder of sources"
            )


def _plan(session: Session, facts: dict[str, Any]) -> None:
    rows = [[key.replace("_", " "), str(value)] for key, value in facts.items()]
    terminal.emit(
        session,
        {"kind": "plan", **facts},
        lambda console: console.print(terminal.table(["plan", "value"], rows)),
    )
