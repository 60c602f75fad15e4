"""bntools data-dim: read the points, estimate, show, draw."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import dispatch, option_blocks, options, terminal
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools data-dim activations.safetensors --tensor layer.5
  bntools data-dim points.npy --estimator all --plot scale.svg
  bntools data-dim points.npz --tensor x | jq .dimension.value
"""
_NAMES = ["all", "calibrated", "twonn", "mle", "gride", "corrint", "lpca"]


@click.command("data-dim", short_help="Measure the intrinsic dimension of a point cloud.", epilog=EPILOG)
@options.input_argument(example="bntools data-dim points.npy")
@option_blocks.tensor("tensor or array")
@click.option(
    "--estimator",
    "chosen",
    type=click.Choice(_NAMES),
    default="calibrated",
    show_default=True,
    help="Which estimate to make; all: every one, the calibrated first.",
)
@click.option(
    "--queries",
    type=click.IntRange(50),
    default=5000,
    show_default=True,
    help="Measure the neighbourhoods of so many points at most, among all points.",
)
@option_blocks.plot("dimension against scale")
@options.part_output
@options.part_force
@options.run_folder
@options.shard
@options.jobs
@options.common
@dispatch.divided(dispatch.Division(late=("chosen",), library="bntools.tools.data_dim.parts"))
def command(
    session: Session,
    source: str,
    tensor: str | None,
    chosen: str,
    queries: int,
    plot: str | None,
    **given: Any,
) -> None:
    """Intrinsic dimension of the points in INPUT, with a 95 % interval and the scale it is seen at.

    INPUT is a safetensors artifact, a .npy or .npz file, or - for one of them on standard input. The last axis holds
    the coordinates, all axes before it count points.
    """
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    from bntools.tools.data_dim.dimension import NAMES, Settings, data_dimension
    from bntools.tools.data_dim.points import read

    array, precision, name = read(source, tensor)
    session.apply()
    which = {"all": NAMES, "twonn": ("twonn", "twonn_fit")}.get(chosen, (chosen,))
    settings = Settings(estimators=which, queries=queries, seed=session.seed, threads=session.threads)
    if session.dry_run:
        return _plan(session, array.shape, name, settings)
    progress, neighbours = functools.partial(terminal.progress, session), None
    if given["shard"] or given["gather"]:
        from bntools.tools.data_dim.parts import Points

        points = Points(array, precision, settings)
        if given["shard"]:
            return terminal.manifest(points.write(given["shard"], given["output"], given["force"], progress))
        neighbours = points.read(given["gather"])
    report = data_dimension(array, settings, precision, progress, neighbours)
    _notes(session, report)
    if plot is not None:
        from bntools.tools.data_dim.plot import draw

        draw(report, plot)
    return terminal.emit(session, report, lambda console: _draw(console, report))


def _plan(session: Session, shape: tuple[int, ...], name: str, settings: Any) -> None:
    from bntools.tools.data_dim.dimension import cost

    report = {"kind": "plan", "tensor": name, "shape": list(shape), **cost(shape, settings)}
    rows = [[key.replace("_", " "), str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _notes(session: Session, report: dict[str, Any]) -> None:
    dropped = report["dropped"]
    for count, what in (
        (dropped["rows"], "rows with NaN or infinity left out"),
        (dropped["columns"], "constant columns left out"),
        (report["n_duplicates"], "duplicates left out"),
    ):
        if count:
            terminal.note(session, f"{count:,} {what}")
    for warning in report["warnings"]:
        terminal.note(session, f"warning: {warning['text']}")


def _draw(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three

    def row(title: str, estimate: dict[str, Any]) -> list[str]:
        interval = (
            "-" if estimate["high"] is None else f"{three(estimate['low'])} to {three(estimate['high'])}"
        )
        return [title, three(estimate["value"]), interval]

    rows = [row(name, estimate) for name, estimate in report["estimators"].items()]
    console.print(terminal.table(["intrinsic dimension", "value", "95 %"], rows))
    rows = [[str(s["neighbours"]), three(s["distance"]), *row("", s)[1:]] for s in report["scale"]]
    console.print(terminal.table(["neighbours", "distance", "gride", "95 %"], rows))
    console.print(
        f"{report['n_points']:,} points, {report['n_features']:,} coordinates, "
        f"{report['n_queries']:,} neighbourhoods measured"
    )
