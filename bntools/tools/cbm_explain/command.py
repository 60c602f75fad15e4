"""bntools cbm-explain: read the bottleneck and the rows, explain, show, draw."""

from __future__ import annotations

from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools cbm-explain cbm.safetensors --data test.safetensors --row 3
  bntools cbm-explain cbm.safetensors --data test.safetensors --global --plot global.svg
  bntools cbm-explain cbm.safetensors --data test.safetensors --intervene truth.safetensors --policy margin
"""


def _budgets(context: click.Context, _: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise usage(f"--budget {value} is no list of numbers", "--budget 1,2,5,10")
    return tuple(int(part) for part in parts)


def _changes(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    result = {}
    for text in values:
        name, sign, number = text.rpartition("=")
        try:
            result[name] = float(number)
        except ValueError:
            sign = ""
        if not sign or not name:
            raise usage(f"--set {text} is not CONCEPT=VALUE", "--set 'has wings=1.5'")
    return result


def _grid(context: click.Context, _: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    rows, _x, columns = value.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise usage(f"--grid {value} is not ROWSxCOLUMNS", "--grid 7x7")
    return int(rows), int(columns)


@click.command(
    "cbm-explain", short_help="Say which concepts decide, and what would change it.", epilog=EPILOG
)
@options.input_argument(example="bntools cbm-explain cbm.safetensors --data test.safetensors --row 3")
@click.option("--data", required=True, metavar="FILE", help="Embeddings of the rows to explain.")
@click.option("--row", type=click.IntRange(0), default=0, show_default=True, help="The row to explain.")
@click.option("--global", "overall", is_flag=True, help="Explain the classes over all rows.")
@click.option("--nec", metavar="N", help="The head of another sparsity of the table.")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Concepts to show.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    callback=_changes,
    metavar="CONCEPT=VALUE",
    help="Change a concept of the row, in standard deviations.",
)
@click.option(
    "--intervene",
    metavar="FILE|truth",
    help="Correct concepts by these annotations; truth: those in the data.",
)
@click.option(
    "--policy",
    type=click.Choice(["random", "uncertainty", "margin", "mixed", "expected"]),
    help="Which concept to correct next. [default: expected; uncertainty of energies]",
)
@click.option(
    "--budget",
    default="1,2,5,10",
    show_default=True,
    callback=_budgets,
    metavar="N,...",
    help="Concepts corrected in each row.",
)
@click.option(
    "--given", metavar="CONCEPT", help="With --global, of energies: among rows that have this concept."
)
@click.option("--patches", metavar="FILE", help="Map concepts over these patch embeddings of the row.")
@click.option(
    "--grid", callback=_grid, metavar="RxC", help="Rows and columns of patches; a square unless said."
)
@option_blocks.plot("it")
@options.common
def command(session: Session, source: str, data: str, row: int, overall: bool, nec: str | None, top: int,
            changes: dict[str, float], intervene: str | None, policy: str | None, budget: tuple[int, ...],
            given: str | None, patches: str | None, grid: tuple[int, int] | None,
            plot: str | None) -> None:  # fmt: skip
    """Explain decisions of the bottleneck INPUT: contributions that add up to the logit, and a counterfactual."""
    if sum((overall, bool(changes), intervene is not None)) > 1:
        raise usage("--global, --set and --intervene are different questions", "ask one at a time")
    if plot is not None:
        from bntools.core.report import pictures

        if changes:
            raise usage("--plot draws no --set", "--row, --global or --intervene")
        pictures.check(plot)
    if patches is not None and (overall or changes or intervene is not None):
        raise usage("--patches maps the concepts of one row", "--row N --patches FILE")
    from bntools.tools.cbm_explain.questions import Question, answer, open_both

    question = Question(
        data, row, overall, top, changes, given, intervene, policy, budget, patches, grid, session.seed
    )
    model, rows, kind = open_both(source, question, nec)
    if session.dry_run:
        report: dict[str, Any] = {
            "kind": "plan",
            "rows": len(rows) if kind == "motif" else len(rows.x),
            "concepts": len(model.names),
            "classes": len(model.classes),
        }
    else:
        report = answer(model, rows, kind, question)
    if plot is not None and not session.dry_run:
        from bntools.tools.cbm_explain.plot import draw

        draw(report, plot)
    return terminal.emit(session, report, lambda console: _show(console, report))


def _show(console: Any, report: dict[str, Any]) -> None:
    from bntools.tools.cbm_explain.table import draw

    draw(console, report)
