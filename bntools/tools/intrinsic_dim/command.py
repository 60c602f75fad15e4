"""bntools intrinsic-dim: parse, search or measure, show, draw, write the compressed network."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from bntools import dispatch, option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools intrinsic-dim --data mnist/ --model fc:200,200 --work fc/ --plot fc.svg
  bntools intrinsic-dim --data mnist/ --model lenet -o net.subspace.safetensors
  bntools intrinsic-dim --model default: --data task.jsonl --projection said --dims 50,200
"""
EPOCHS = {"data": 2.0, "text": 2.0, "env": 4.0}


class Numbers(click.ParamType):
    """Comma-separated positive numbers."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(dict.fromkeys(self.kind(word) for word in value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is not a comma-separated list of numbers", param, ctx)
        if not all(0 < number < 1e12 for number in numbers):
            self.fail(f"{value!r} holds a number that is not positive", param, ctx)
        return numbers


@click.command("intrinsic-dim", short_help="How many dimensions a learning problem has.", epilog=EPILOG)
@click.option(
    "--data",
    metavar="PATH",
    help="IDX folder, .npz or .safetensors with labels; .jsonl or .txt for language.",
)
@click.option(
    "--env", type=click.Choice(["cartpole", "pendulum"]), help="Learn to balance instead of --data."
)
@click.option(
    "--model", metavar="SPEC",
    help="fc:W,W,..., lenet, FILE.py:FUNCTION, or a model directory.  [default: fc:200,200; with --env fc:20,20]",
)  # fmt: skip
@click.option(
    "--projection",
    type=click.Choice(["auto", "uniform", "cyclic", "fastfood", "fastfood-full", "sparse", "dense", "said"]),
    default="auto", show_default=True, help="How the d numbers become parameters.",
)  # fmt: skip
@click.option("--modules", metavar="REGEX", help="Only parameters whose name matches move.  [default: all]")
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.9, show_default=True,
              help="Share of the baseline's score to reach.")  # fmt: skip
@click.option("--dims", type=Numbers(int, "D,D,..."), help="Measure these dimensions instead of searching.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs a dimension.")
@click.option(
    "--lr", type=Numbers(float, "LR,LR,..."), help="Learning rates to try.  [default: searched for]"
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, min_open=True),
    help="Of a run.  [default: 2; with --env 4 of 25 steps]",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Examples a step.  [default: 128; of language, 8 windows]"
)
@click.option(
    "--window", type=click.IntRange(2), default=128, show_default=True, help="Tokens a window of language."
)
@click.option(
    "--shuffle", type=click.Choice(["labels", "pixels"]), help="Destroy what labels or pixels mean."
)
@click.option("--samples", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
              help="Share of the training rows to use.")  # fmt: skip
@click.option("--cold", is_flag=True, help="Never start a run from one of half the dimension.")
@click.option(
    "--widths", type=Numbers(int, "W,W,..."), help="A search for fc: networks of each of these widths."
)
@click.option("--depths", type=Numbers(int, "N,N,..."), help="And of each of these numbers of hidden layers.")
@options.work
@options.part
@click.option("--gather", is_flag=True, help="Report what all shards of --dims left in --work.")
@option_blocks.plot("the curve, or the grid")
@option_blocks.written("the network as a seed and d numbers")
@click.option("--codes", type=click.Choice(["fp32", "fp16", "int8"]), default="int8", show_default=True,
              help="Type of the numbers that -o writes.")  # fmt: skip
@option_blocks.replacing("output")
@options.jobs
@options.common
@dispatch.divided(
    dispatch.Division(
        ("data", "model"), ("codes",), "bntools.tools.intrinsic_dim.measure", ledger=True,
        check=lambda given: _check(given["output"], {**given, "gather": True}),
    )
)  # fmt: skip
def command(session: Session, output: str | None, force: bool, **given: Any) -> None:
    """Search for the smallest random subspace in which a network still learns: its d_int90, with an interval.

    Trains all parameters for a baseline, then only d numbers of which all parameters are a fixed random function.
    """
    _check(output, given)
    if output is not None:
        from bntools.core.artifact.writer import check_target

        check_target(output, force)
    import torch

    session.apply()
    torch.set_num_threads(
        1
    )  # one run, one thread: the same bytes whatever --threads, which counts runs at a time
    source, settings = _source(session, given), _settings(session, given)
    workers = session.threads or os.cpu_count() or 1
    if session.dry_run:
        return _plan(session, source, settings, workers)
    report = _run(session, source, settings, workers, given, output, force)
    if given["plot"] and report["kind"] == "intrinsic-dim":
        from bntools.tools.intrinsic_dim.picture import draw

        draw(report, given["plot"])
    from bntools.tools.intrinsic_dim.table import draw as draw_table

    for warning in report.get("warnings", []):
        terminal.note(session, f"warning: {warning['text']}")
    if output == "-":
        return None
    return terminal.emit(session, report, lambda console: draw_table(console, report))


def _check(output: str | None, given: dict[str, Any]) -> None:
    """Refuse options that do not fit each other before anything is read."""
    grid = given["widths"] is not None or given["depths"] is not None
    if (given["shard"] or given["gather"]) and not (given["work"] and given["dims"]):
        raise usage("--shard and --gather need --work and --dims", "--work DIR --dims 100,200,400")
    if given["data"] is None and given["env"] is None:
        raise usage(
            "no --data and no --env", "bntools fetch mnist -o mnist/; bntools intrinsic-dim --data mnist/"
        )
    if given["data"] is not None and given["env"] is not None:
        raise usage("--data and --env exclude each other", "name one of them")
    if grid and (
        given["shard"] or given["gather"] or output or (given["model"] or "fc:").partition(":")[0] != "fc"
    ):
        raise usage("--widths and --depths go with fc: networks, without --shard and -o", "leave those out")
    if output and (given["shard"] or given["gather"] or given["env"]):
        raise usage("-o goes with a search on data", "leave out --shard, --gather and --env")
    if given["plot"]:
        from bntools.core.report import pictures

        pictures.check(given["plot"])


def _source(session: Session, given: dict[str, Any]) -> Any:
    from bntools.core.datasets.networks import is_named
    from bntools.tools.intrinsic_dim.problem import Source

    model = given["model"] or ("fc:20,20" if given["env"] else "fc:200,200")
    kind = "env" if given["env"] else "data" if is_named(model) or ".py:" in model else "text"
    return Source(
        model=model, data=given["data"], env=given["env"], projection=given["projection"], modules=given["modules"],
        shuffle=given["shuffle"], share=given["samples"], epochs=given["epochs"] or EPOCHS[kind],
        batch=given["batch"], window=given["window"], seed=session.seed,
    )  # fmt: skip


def _settings(session: Session, given: dict[str, Any]) -> Any:
    from bntools.tools.intrinsic_dim.measure import Settings

    dims = tuple(sorted(given["dims"])) if given["dims"] else None
    return Settings(given["threshold"], given["seeds"], dims, given["lr"], not given["cold"], session.seed)


def _run(session: Session, source: Any, settings: Any, workers: int, given: dict[str, Any], output: str | None,
         force: bool) -> dict[str, Any]:  # fmt: skip
    from bntools.tools.intrinsic_dim import measure
    from bntools.tools.intrinsic_dim.ledger import Ledger

    ledger = Ledger(Path(given["work"]) if given["work"] else None, given["shard"])
    if given["gather"]:
        return measure.gather(source, settings, ledger)
    with _steps(session, settings) as step:
        if given["shard"]:
            return measure.part(source, settings, ledger, workers, step, given["shard"])
        if given["widths"] or given["depths"]:
            widths, depths = given["widths"] or (200,), given["depths"] or (2,)
            return measure.grid(source, settings, ledger, workers, step, widths, depths)
        report, outcome, problem = measure.measure(source, settings, ledger, workers, step)
    if output is not None:
        report["network"] = _write(session, output, force, given["codes"], outcome, problem)
    return report


@contextlib.contextmanager
def _steps(session: Session, settings: Any) -> Any:
    """A bar over the runs that are likely, and with -v a line a run."""
    likely = 14 + 8 * settings.seeds if settings.dims is None else len(settings.dims) * (4 + settings.seeds)
    with terminal.progress(session, "training", likely) as advance:

        def step(run: Any) -> None:
            advance(1)
            dim = "all" if run.job.dim is None else run.job.dim
            end = " (given up)" if run.outcome.stopped else ""
            text = f"{run.job.phase}: d {dim}, seed {run.job.seed}, lr {run.job.lr:.3g}: {run.outcome.score:.4g}{end}"
            terminal.detail(session, text)

        yield step


def _write(
    session: Session, output: str, force: bool, codes: str, outcome: Any, problem: Any
) -> dict[str, Any]:
    from bntools.core.artifact.writer import Writer
    from bntools.core.model import history, subspace
    from bntools.tools.intrinsic_dim.compress import choose, keep

    with Writer(output, subspace.KIND, force=force) as out:
        kept = keep(problem, choose(outcome), codes, out)
        out.describe("report", {"kind": "subspace", **kept})
        inputs = [{"label": str(problem.source.data), "sha256": problem.facts["data"]}]
        entry = history.entry("intrinsic-dim", options.argv(), session.seed, inputs, session.started)
        out.describe("history", [entry])
    return (
        kept
        if out.manifest is None
        else {**kept, "path": out.manifest["path"], "sha256": out.manifest["sha256"]}
    )


def _plan(session: Session, source: Any, settings: Any, workers: int) -> None:
    from bntools.tools.intrinsic_dim.measure import cost

    report = cost(source, settings, workers)
    rows = [
        ["parameters", f"{report['D']:,}"],
        ["runs", f"{report['runs']['low']} to {report['runs']['high']}"],
        ["seconds a run", f"{report['seconds_per_run']:.3g}"],
        [
            f"minutes with {workers} at a time",
            " to ".join(f"{report['seconds'][k] / 60:.2g}" for k in ("low", "high")),
        ],
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
