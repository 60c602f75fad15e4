"""bntools cost-tts: read runs and configs, price, compare, draw."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools cost-tts runs.jsonl --models q06/ q17/ q4/ --budget 1e5 --device b200
  bntools cost-tts runs.jsonl --models small=q06/ large=q4/ --sparse topk:1024 --plot frontier.svg
"""


@click.command("cost-tts", short_help="Choose model and trials for a budget at test time.", epilog=EPILOG)
@click.argument("names", metavar="[RUNS] [MODEL]...", nargs=-1)
@click.option(
    "--models", multiple=True, metavar="[NAME=]MODEL ...",
    help="Directories or configs of the runs' models; the others may follow.",
)  # fmt: skip
@click.option("--budget", multiple=True, type=click.FloatRange(0, min_open=True), metavar="ETFLOPS",
              help="Choose the best for so many equivalent TFLOPs a query; repeatable.")  # fmt: skip
@click.option("--trials", metavar="N,...", help="Numbers of trials.  [default: powers of two that were run]")
@click.option("--fit", is_flag=True, help="Extrapolate to more trials than were run.")
@click.option("--sparse", metavar="KIND", help="Keys a query reads: topk:1024, or block:1024/16.")
@click.option("--kv-bits", type=click.FloatRange(0, 64, min_open=True), default=16, show_default=True,
              help="Bits of a number in the cache.")  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), help="Sequences that share a reading of the weights.  [default: many]"
)
@click.option("--prompt", type=click.IntRange(1), default=512, show_default=True,
              help="Tokens of a prompt, where the runs do not say.")  # fmt: skip
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16", "fp8"]), default="bf16", show_default=True,
              help="Type of the arithmetic.")  # fmt: skip
@click.option(
    "--intensity", type=click.FloatRange(0), help="FLOPs that a byte is worth.  [default: of --device]"
)
@click.option("--bootstrap", type=click.IntRange(0), default=1000, show_default=True,
              help="Resamples of the queries for the intervals.")  # fmt: skip
@option_blocks.plot("accuracy against cost")
@option_blocks.replacing("picture")
@options.common
def command(session: Session, names: tuple[str, ...], **given: Any) -> None:
    """Which model and how many trials are most accurate for a budget, counting compute and memory traffic.

    RUNS holds lines {"model": .., "query": .., "trial": .., "tokens": .., "correct": ..}; - is standard input.
    """
    from bntools.tools.cost_tts.frontier import Settings, scaling_report
    from bntools.tools.cost_tts.table import draw

    if given["plot"]:
        from bntools.core.report import pictures

        pictures.check(given["plot"], given["force"])
    runs, models = _inputs(names, given["models"])
    trials = _trials(given["trials"])
    prices = _prices(session, models, given)
    settings = Settings(tuple(given["budget"]), trials, given["fit"], given["bootstrap"], session.seed)
    groups = _groups(runs, given["prompt"])
    if session.dry_run:
        plan = {"kind": "plan", "runs": runs, "models": sorted(prices), "groups": len(groups)}
        return terminal.emit(session, plan, lambda console: console.print_json(data=plan))
    report = scaling_report(groups, prices, settings)
    if given["plot"]:
        from bntools.tools.cost_tts.plot import draw as picture

        picture(report, given["plot"], given["force"])
    return terminal.emit(session, report, functools.partial(draw, report=report))


def _inputs(names: tuple[str, ...], models: tuple[str, ...]) -> tuple[str, list[str]]:
    """The runs, and all models: those of the option and what follows them."""
    if not names:
        if not options.stdin_connected():
            raise usage("no RUNS, and nothing on standard input",
                        "for example: bntools cost-tts runs.jsonl --models q06/ q17/")  # fmt: skip
        names = ("-",)
    if not models and len(names) < 2:
        raise usage("no models: nothing is priced without their configs", "--models q06/ q17/ q4/")
    return names[0], [*models, *names[1:]]


def _trials(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise usage(f"--trials {text!r} is no list of numbers", "--trials 1,2,4") from None
    if min(counts) < 1:
        raise usage(f"--trials {text!r}: numbers of trials are positive", "--trials 1,2,4")
    return counts


def _prices(session: Session, models: list[str], given: dict[str, Any]) -> dict[str, Any]:
    from bntools.core.architecture.shapes.counts import parameters
    from bntools.core.architecture.shapes.layers import model_shape
    from bntools.core.methods.model_headers import open_subject
    from bntools.tools.cost_tts.price import Price, parse_sparse

    devices = options.devices_named(session)
    if len(devices) > 1:
        raise usage("--device: one at a time", "run it once a device")
    if not devices and given["intensity"] is None:
        raise usage("no --device to say what a byte is worth", "--device b200, or --intensity 281")
    intensity = given["intensity"] if given["intensity"] is not None else devices[0].ridge(given["dtype"])
    sparse, prices = parse_sparse(given["sparse"]), {}
    for text in models:
        name, equals, path = text.partition("=")
        path = path if equals else text
        name = name if equals else os.path.basename(os.path.realpath(text)).removesuffix(".json")
        subject = open_subject(path)
        shape = model_shape(subject.config, f"the config of {path}")
        stored = sum(size for _, size in subject.tensors) if subject.tensors else 2.0 * parameters(shape)
        prices[name] = Price(shape, intensity, given["kv_bits"] / 8, sparse, given["batch"], stored)
    return prices


def _groups(runs: str, prompt: int) -> Any:
    from bntools.tools.cost_tts.runs import read_runs

    if runs == "-":
        return read_runs(sys.stdin.buffer, "standard input", prompt)
    try:
        with open(runs, "rb") as lines:
            return read_runs(lines, runs, prompt)
    except OSError as error:
        raise usage(f"cannot open {runs}: {error.strerror}", "check the path") from None


options.device_file(command)
