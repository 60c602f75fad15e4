"""bntools cost-fpga: count a network, or fit a corrector to a table of syntheses."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import bad_input, usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools cost-fpga net.json --part xczu9eg --clock 5 --reuse 16 --strategy resource
  bntools cost-fpga --fit table.csv -o corrector.safetensors
  bntools cost-fpga net.json --corrector corrector.safetensors
  bntools cost-fpga --synthetic 400 > table.jsonl
"""


@click.command("cost-fpga", short_help="Estimate what a network takes of an FPGA.", epilog=EPILOG)
@click.argument("source", metavar="[INPUT]", required=False)
@click.option("--part", metavar="NAME", help="FPGA whose room is compared, for example xczu9eg.")
@click.option("--clock", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
              help="Period of the clock in nanoseconds.")  # fmt: skip
@click.option("--reuse", type=click.IntRange(1), default=1, show_default=True,
              help="Uses of a multiplier, where a layer does not say.")  # fmt: skip
@click.option("--strategy", type=click.Choice(["latency", "resource"]), default="latency", show_default=True,
              help="Where weights lie, where a layer does not say: in logic, in memory.")  # fmt: skip
@click.option("--bits", type=click.IntRange(1, 64), default=16, show_default=True,
              help="Bits of weights and inputs, where a layer does not say.")  # fmt: skip
@click.option("--corrector", metavar="FILE", help="Correct by this artifact of --fit.")
@click.option("--fit", "samples", metavar="TABLE", help="Fit a corrector to syntheses: JSON lines or CSV.")
@click.option("--model", type=click.Choice(["auto", "boosting", "graph", "transformer"]), default="auto",
              show_default=True, help="What to fit; auto: the one with the least held-out error.")  # fmt: skip
@click.option("--synthetic", type=click.IntRange(1), metavar="N",
              help="Print a table of N networks with a known law, to try --fit.")  # fmt: skip
@options.output
@options.common
def command(session: Session, source: str | None, **given: Any) -> None:
    """Multipliers, memory and rounds of the network in INPUT, with an interval where a corrector is given.

    INPUT is JSON {"layers": [{"type": "dense", "inputs": 16, "outputs": 64}, ...]}, or - for standard input.
    """
    from bntools.tools.cost_fpga.network import Defaults

    defaults = Defaults(given["reuse"], given["strategy"], given["bits"])
    if given["synthetic"]:
        return _synthetic(given["synthetic"], session.seed)
    if given["samples"]:
        return _fit(session, given, defaults)
    return _estimate(session, source, given, defaults)


def _estimate(session: Session, source: str | None, given: dict[str, Any], defaults: Any) -> None:
    from bntools.core.model.open import open_input
    from bntools.tools.cost_fpga.network import parse_network
    from bntools.tools.cost_fpga.report import network_report
    from bntools.tools.cost_fpga.table import draw

    if source is None and not options.stdin_connected():
        raise usage("no INPUT, and nothing on standard input", "for example: bntools cost-fpga net.json")
    opened = open_input(source or "-")
    if not isinstance(opened, dict):
        raise bad_input(f"{source or 'standard input'} is no JSON of a network", '{"layers": [...]}')
    layers = parse_network(opened, source or "standard input", defaults)
    corrector = _open_corrector(given["corrector"]) if given["corrector"] else None
    report = network_report(layers, given["part"], given["clock"], corrector)
    for line in report["notes"]:
        terminal.note(session, line)
    return terminal.emit(session, report, functools.partial(draw, report=report))


def _open_corrector(path: str) -> Any:
    from bntools.core.artifact.reader import open_path
    from bntools.tools.cost_fpga.corrector import read_corrector

    with open_path(path) as source:
        return read_corrector(source)


def _fit(session: Session, given: dict[str, Any], defaults: Any) -> None:
    from bntools.core.artifact.targets import check_target
    from bntools.tools.cost_fpga.corrector import NAMES, fit, write_corrector
    from bntools.tools.cost_fpga.samples import read_samples
    from bntools.tools.cost_fpga.table import draw_fit

    target = given["output"]
    if target != "-":
        check_target(target, given["force"])
    samples = read_samples(given["samples"], defaults)
    if session.dry_run:
        plan = {"kind": "plan", "rows": len(samples), "model": given["model"], "writes": target}
        return terminal.emit(session, plan, lambda console: console.print_json(data=plan))
    session.apply()
    tried = len(NAMES) if given["model"] == "auto" else 1
    with terminal.progress(session, "fit", tried) as advance:
        corrector = fit(samples, given["model"], session.seed, advance)
    manifest = None
    if target != "-":
        manifest = write_corrector(corrector, target, given["force"], _history(session, given["samples"]))
    report = {**corrector.report, "manifest": manifest}
    return terminal.emit(session, report, functools.partial(draw_fit, report=report))


def _history(session: Session, table: str) -> dict[str, Any]:
    """The stage that the artifact's history records."""
    from pathlib import Path

    from bntools.core.datasets.cache import sha256_file
    from bntools.core.model.history import entry

    source = {"label": table, "bytes": Path(table).stat().st_size, "sha256": sha256_file(Path(table))}
    return entry("cost-fpga", options.argv(), session.seed, [source], session.started)


def _synthetic(count: int, seed: int) -> None:
    import json

    from bntools.tools.cost_fpga.synthetic import rows

    for row in rows(count, seed):
        click.echo(json.dumps(row))
