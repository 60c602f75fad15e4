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
    default="expected",
    show_default=True,
    help="Which concept to correct next.",
)
@click.option(
    "--budget",
    default="1,2,5,10",
    show_default=True,
    callback=_budgets,
    metavar="N,...",
    help="Concepts corrected in each row.",
)
@option_blocks.plot("it")
@options.common
def command(session: Session, source: str, data: str, row: int, overall: bool, nec: str | None, top: int,
            changes: dict[str, float], intervene: str | None, policy: str, budget: tuple[int, ...],
            plot: str | None) -> None:  # fmt: skip
    """Explain decisions of the bottleneck INPUT: contributions that add up to the logit, and a counterfactual."""
    if sum((overall, bool(changes), intervene is not None)) > 1:
        raise usage("--global, --set and --intervene are different questions", "ask one at a time")
    if plot is not None:
        from bntools.core.report import pictures

        if changes:
            raise usage("--plot draws no --set", "--row, --global or --intervene")
        pictures.check(plot)
    model, rows = _open(source, data, nec)
    _known(model, changes)
    if session.dry_run:
        report: dict[str, Any] = {
            "kind": "plan",
            "rows": len(rows.x),
            "concepts": len(model.names),
            "classes": len(model.classes),
        }
    elif intervene is not None:
        report = _intervene(session, model, rows, (data, intervene), (policy, budget))
    else:
        report = _explain(model, rows, row, top, (overall, changes))
    if plot is not None and not session.dry_run:
        from bntools.tools.cbm_explain.plot import draw

        draw(report, plot)
    return terminal.emit(session, report, lambda console: _show(console, report))


def _open(source: str, data: str, nec: str | None) -> tuple[Any, Any]:
    from bntools.core.methods.cbm import file, inputs, score

    with inputs.open_tensors(source) as opened:
        model = file.read(opened)
    if nec is not None:
        if nec not in model.heads:
            raise usage(f"--nec {nec}: no such head", f"it has {', '.join(model.heads) or 'one only'}")
        model = model.at(nec)
    rows = inputs.read_embeddings(data)
    score.check(model, rows)
    return model, rows


def _known(model: Any, changes: dict[str, float]) -> None:
    import difflib

    for name in changes:
        if name not in model.names:
            near = difflib.get_close_matches(name, model.names, 1)
            raise usage(
                f"no concept {name!r}", f"did you mean {near[0]!r}?" if near else "bntools info shows them"
            )


def _explain(
    model: Any, rows: Any, row: int, top: int, what: tuple[bool, dict[str, float]]
) -> dict[str, Any]:
    from bntools.tools.cbm_explain import explain
    from bntools.tools.cbm_explain import intervene as change

    if what[0]:
        return explain.overall(model, rows, top)
    report = explain.local(model, rows, row, top)
    return change.apply_changes(model, rows, row, what[1]) if what[1] else report


def _intervene(
    session: Session, model: Any, rows: Any, files: tuple[str, str], how: tuple[str, tuple[int, ...]]
) -> Any:
    from bntools.core.methods.cbm import inputs
    from bntools.tools.cbm_explain.intervene import intervene

    truth = inputs.read_truth(files[0] if files[1] == "truth" else files[1], len(rows.x))
    return intervene(model, rows, truth, policy=how[0], budgets=how[1], seed=session.seed)


def _show(console: Any, report: dict[str, Any]) -> None:
    from bntools.tools.cbm_explain.table import draw

    draw(console, report)
