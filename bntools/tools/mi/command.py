"""bntools mi: read two sides, estimate, test, rank, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

if TYPE_CHECKING:
    from bntools.core.information.estimators import Estimation

EPILOG = """\b
Examples:
  bntools mi x.safetensors y.safetensors
  bntools mi layer.safetensors layer.safetensors:label --units bits
  bntools mi table.csv --target y --rank
  bntools mi spiral.npz:x spiral.npz:y --critic
  bntools mi --bench
"""
_ESTIMATORS = [
    "auto", "ksg", "corrected", "t-copula", "gaussian", "reference", "kl", "weighted-kl", "ross", "mixed",
    "binning", "cauchy-schwarz", "renyi",
]  # fmt: skip


@click.command("mi", short_help="Mutual information, and how far to trust it.", epilog=EPILOG)
@click.argument("x", required=False)
@click.argument("y", required=False)
@click.option("--estimator", type=click.Choice(_ESTIMATORS), default="auto", show_default=True,
              help="How to estimate; auto: by what the two sides are.")  # fmt: skip
@click.option(
    "--labels/--no-labels", "labels", default=None, help="Whether Y is classes.  [default: by its values]"
)
@click.option("-k", "--neighbours", type=click.IntRange(1, 100), default=3, show_default=True,
              help="Which neighbour sets the distance.")  # fmt: skip
@click.option(
    "--bins", type=click.IntRange(2), default=30, show_default=True, help="Bins of --estimator binning."
)
@click.option("--units", type=click.Choice(["nats", "bits"]), default="nats", show_default=True, help="Unit.")
@click.option("--target", metavar="NAME", help="The column of a table that the others are compared with.")
@click.option("--rank", "ranked", is_flag=True, help="Each column of the table X against --target.")
@click.option(
    "--selftest", "tested", is_flag=True, help="Test each estimator on these rows; who fails has no vote."
)
@click.option(
    "--critic", is_flag=True, help="Also train a critic; the figure is its bound where that is surely higher."
)
@click.option("--drop-bad", is_flag=True, help="Leave out rows with NaN or infinity, on both sides.")
@click.option("--bench", "benched", is_flag=True, help="Errors on the 40 tasks of 'Beyond Normal'.")
@click.option(
    "--rows", type=click.IntRange(50), default=10_000, show_default=True, help="Rows a task of --bench."
)
@click.option(
    "--draws", type=click.IntRange(1), default=1, show_default=True, help="Draws a task of --bench."
)
@options.common
def command(session: Session, x: str | None, y: str | None, **choices: Any) -> None:
    """Mutual information of the rows of X and Y: value, 95 % interval, cap, flags, and every cheap estimate.

    X and Y are activations, .npy or .npz files, FILE:NAME for one tensor or column of a file, or - for standard input.
    """
    from bntools.core.information.estimators import Estimation

    session.apply()
    settings = Estimation(
        choices["estimator"], choices["neighbours"], choices["bins"], choices["units"], session.seed,
        critic=choices["critic"],
    )  # fmt: skip
    if choices["benched"]:
        return _bench(session, settings, choices["rows"], choices["draws"])
    if x is None and options.stdin_connected():
        x = "-"
    if x is None:
        raise usage("no X, and nothing on standard input", "bntools mi x.safetensors y.safetensors")
    if choices["ranked"] or choices["target"]:
        return _rank(session, settings, x, choices["target"])
    if y is None:
        raise usage("no Y", f"bntools mi {x} y.safetensors, or {x}:label")
    return _pair(session, settings, (x, y), choices)


def _pair(session: Session, settings: Estimation, sources: tuple[str, str], choices: dict[str, Any]) -> None:
    from bntools.tools.mi import read
    from bntools.tools.mi.run import pair_report
    from bntools.tools.mi.table import draw_pair

    first, second, dropped = read.pair(read.side(sources[0]), read.side(sources[1]), choices["drop_bad"])
    if session.dry_run:
        return _plan(session, {"rows": len(first), "x": list(first.shape), "y": list(second.shape)})
    if dropped:
        terminal.note(session, f"{dropped:,} rows with NaN or infinity left out")
    report = pair_report(first, second, settings, labels=choices["labels"], tested=choices["tested"])
    report["dropped"] = dropped
    if "unreliable" in report["flags"]:
        terminal.note(session, f"the figure is not to be relied on: {', '.join(report['flags'])}")
    return terminal.emit(session, report, lambda console: draw_pair(console, report))


def _rank(session: Session, settings: Estimation, source: str, target: str | None) -> None:
    from bntools.tools.mi import read
    from bntools.tools.mi.rank import rank
    from bntools.tools.mi.table import draw_rank

    if target is None:
        raise usage("--rank needs the column to compare with", "--target NAME")
    columns, names = read.columns(source)
    if target not in names:
        raise usage(f"{source} has no numeric column {target}", f"it has: {', '.join(names[:8])}")
    if session.dry_run:
        return _plan(session, {"rows": len(columns), "columns": len(names)})
    with terminal.progress(session, "columns", len(names) - 1) as advance:
        entries = rank(columns, names, target, settings, advance=advance)
    report = {
        "kind": "mi-rank",
        "target": target,
        "units": settings.units,
        "rows": len(columns),
        "columns": entries,
    }
    return terminal.emit(session, report, lambda console: draw_rank(console, report))


def _bench(session: Session, settings: Estimation, rows: int, draws: int) -> None:
    from bntools.tools.mi.bench import bench
    from bntools.tools.mi.table import draw_bench

    if settings.units != "nats":
        raise usage("--bench compares nats", "leave out --units")
    if session.dry_run:
        return _plan(session, {"tasks": 40, "rows": rows, "draws": draws})
    with terminal.progress(session, "tasks", 40 * draws) as advance:
        report = bench(rows, draws, settings, advance=advance)
    return terminal.emit(session, report, lambda console: draw_bench(console, report))


def _plan(session: Session, facts: dict[str, Any]) -> None:
    rows = [[key, str(value)] for key, value in facts.items()]
    report = {"kind": "plan", **facts}
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
