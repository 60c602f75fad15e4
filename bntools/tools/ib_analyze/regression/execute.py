"""--train: read the table, train every method, write the chosen network, show."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

if TYPE_CHECKING:
    from bntools.tools.ib_analyze.regression.options import Training
    from bntools.tools.ib_analyze.regression.settings import Regressing


def execute(
    session: Session, source: str, training: Training, *, place: tuple[str, bool], plot: str | None
) -> None:
    """place: where the network goes, `-` for standard output, and whether it may replace what is there.

    To a pipe the network goes alone; beside -o, with --json and on a terminal the report is shown.
    """
    from bntools.core.datasets.tables import open_table
    from bntools.tools.ib_analyze.regression.design import read_rows
    from bntools.tools.ib_analyze.regression.settings import Regressing, parse_betas, parse_width
    from bntools.tools.ib_analyze.regression.table import draw

    output, force = place
    settings = Regressing(
        training.target, parse_betas(training.beta), training.norm, parse_width(training.kernel_width), training.code,
        training.train_epochs, seed=session.seed,
    )  # fmt: skip
    pipe = output == "-" and not session.json and not session.dry_run and not sys.stdout.isatty()
    if pipe or output != "-":
        from bntools.core.artifact.targets import check_target

        check_target(output, force)
    session.apply()
    with open_table(source) as table:
        rows, label = read_rows(table, settings.target, session.seed), table.label
    if session.dry_run:
        return _plan(session, rows, settings)
    for what, count in rows.dropped.items():
        if count:
            terminal.note(session, f"{count:,} columns left out: {what}")
    written = (output, force) if pipe or output != "-" else None
    report = _run(session, rows, settings, label=label, place=written)
    for sentence in report["warnings"]:
        terminal.note(session, sentence)
    if plot is not None:
        from bntools.core.report import pictures
        from bntools.tools.ib_analyze.regression.plot import figure

        pictures.save(figure(report), plot)
    return None if pipe else terminal.emit(session, report, lambda console: draw(console, report))


def _run(
    session: Session, rows: Any, settings: Regressing, *, label: str, place: tuple[str, bool] | None
) -> dict[str, Any]:
    from bntools.core.artifact.writer import Writer
    from bntools.core.information import bottleneck_regression
    from bntools.core.model import history
    from bntools.tools.ib_analyze.regression.report import chosen
    from bntools.tools.ib_analyze.regression.report import report as summarise
    from bntools.tools.ib_analyze.regression.train import plan, sweep

    with terminal.progress(session, "networks", len(plan(settings))) as advance:
        runs = sweep(rows, settings, advance)
    report, best = summarise(rows, settings, runs), chosen(runs)
    if place is None:
        return report
    with Writer(place[0], bottleneck_regression.KIND, force=place[1]) as out:
        bottleneck_regression.write(out, best.model)
        inputs = [{"label": label, "sha256": best.model.digest}]
        out.describe(
            "history", [history.entry("ib-analyze", options.argv(), session.seed, inputs, session.started)]
        )
        out.describe("report", report)
    return report if out.manifest is None else {**out.manifest, **report, "bntools": 1}


def _plan(session: Session, rows: Any, settings: Regressing) -> None:
    from bntools.tools.ib_analyze.regression.train import plan, steps

    networks = len(plan(settings))
    report = {
        "kind": "plan", "rows": len(rows.y), "columns": len(rows.names), "networks": networks,
        "steps": networks * steps(len(rows.train), settings),
    }  # fmt: skip
    lines = [[key, str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], lines)))


def check_apart(given: dict[str, Any]) -> None:
    """Refuse options of planes beside --train (exit 2)."""
    for name in ("labels", "losses", "gap", "paper", "work", "shard", "gather"):
        if given.get(name):
            raise usage(f"--{name} is for planes, --train for a table", "give one of them")
