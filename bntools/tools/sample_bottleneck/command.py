"""bntools sample-bottleneck: parse, plan or draw, write, show."""

from __future__ import annotations

import functools
import sys
from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import GATE, BnError
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools sample-bottleneck flux/ --prompt "a red fox" --plan
  bntools sample-bottleneck sd3/ --prompt-file p.txt --stages "1@1,10@0.5,3@1" -o out/
  bntools sample-bottleneck --cond 7 --compare --plot grid.png | bntools eval
  bntools sample-bottleneck var: --cond 7 --depth 12@early,4@late
"""


@click.command(
    "sample-bottleneck", short_help="Sample at high, low and high resolution, exactly.", epilog=EPILOG
)
@click.argument("model", default="digits:", metavar="[MODEL]")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="What to draw; may be repeated.")
@click.option(
    "--prompt-file", type=click.File(), metavar="FILE", help="Prompts, one a line; - is standard input."
)
@click.option("--negative", default="", metavar="TEXT", help="The prompt that guidance leads away from.")
@click.option(
    "--cond",
    metavar="DIGITS|FILE",
    help="Digits of the embedded model (7, 0,3,7, all, any), or encoded prompts.",
)
@click.option("--count", "-n", type=click.IntRange(1), help="Samples.  [default: one a prompt; 10 digits]")
@click.option("--size", metavar="N|HxW", help="Pixels.  [default: the model's]")
@click.option("--frames", type=click.IntRange(1), default=17, show_default=True, help="Frames of a video.")
@click.option(
    "--guidance", type=float, metavar="W", help="Weight of the prompt.  [default: 4.5; digits: 2.5]"
)
@click.option(
    "--method",
    type=click.Choice(["spectral", "bottleneck", "ralu", "full"]),
    default="spectral",
    show_default=True,
    help="How stages meet: exact bands, new noise (the paper), repeated points, or one stage.",
)
@click.option(
    "--preset",
    type=click.Choice(["flux-paper", "flux-5x", "flux-7x", "sd3-2x", "sd3-3x"]),
    help="Published stages, strengths and shifts of --method bottleneck.",
)
@click.option(
    "--stages", metavar="N@SCALE,...", help="Steps and scale of each stage.  [default: 1@1,10@0.5,3@1]"
)
@click.option(
    "--sigmas",
    metavar="T:T:...",
    help="Noise levels where stages meet.  [default: 0.95 down, the spectrum's up]",
)
@click.option(
    "--strengths", metavar="S:S:...", help="Noise level each stage starts from, of --method bottleneck."
)
@click.option("--shifts", metavar="H:H:...", help="Shift of each stage's levels, of --method bottleneck.")
@click.option(
    "--strength-space",
    "space",
    type=click.Choice(["sigma", "grid"]),
    default="sigma",
    show_default=True,
    help="Whether strengths are levels, or shares of the unshifted grid.",
)
@click.option(
    "--resize",
    type=click.Choice(["bilinear", "bicubic", "nearest", "area", "lanczos3", "dct"]),
    default="bilinear",
    show_default=True,
    help="Kernel of --method bottleneck.",
)
@click.option(
    "--hf",
    "high",
    type=click.Choice(["retain", "wiener", "fresh"]),
    default="retain",
    show_default=True,
    help="The high band at a transition upwards: kept, moved as a Gaussian, or drawn anew.",
)
@click.option(
    "--noise-c",
    "c",
    type=float,
    metavar="C",
    help="Correlation of --method ralu's noise.  [default: the largest]",
)
@click.option(
    "--solver",
    type=click.Choice(["euler", "heun", "ab2"]),
    default="euler",
    show_default=True,
    help="Of each stage.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps of full resolution.  [default: 28; digits and Gaussians: 16]",
)
@click.option(
    "--target-speedup",
    type=click.FloatRange(1.0, min_open=True),
    metavar="X",
    help="Choose stages and transitions for this speed-up.",
)
@click.option(
    "--calibrate", is_flag=True, help="Price stages by timing the model, not by FLOP, for --target-speedup."
)
@click.option(
    "--delta",
    type=click.FloatRange(0.0, min_open=True),
    default=0.05,
    show_default=True,
    help="Signal to noise that may be missing in the high band at a transition upwards.",
)
@click.option("--spectrum", metavar="FILE", help="Mean and variance of the data's DCT coefficients.")
@click.option(
    "--cache",
    default="none",
    show_default=True,
    metavar="KIND:X",
    help="Feature cache: fbc:T or taylor:N.",
)
@click.option(
    "--attention",
    metavar="KIND:S",
    help="Attention: rettention:S or sparse:S, S the share of pairs that is left out.  [default: dense]",
)
@click.option(
    "--depth",
    metavar="N@WHERE,...",
    help="Layers of each scale of var:, WHERE early, late, or a number of scales.  [default: all]",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0.0),
    default=1.0,
    show_default=True,
    help="Of the draws of var:, 0 for the likeliest codes.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the probability that var: draws from.",
)
@click.option("--latents", metavar="FILE", help="Start from its tensor `noise`; - is standard input.")
@click.option("--batch", type=click.IntRange(1), help="Samples at a time.  [default: by tokens]")
@click.option("--plan", is_flag=True, help="Price the schedule from the configs; load no weights.")
@click.option("--machine", default="h100", show_default=True, metavar="NAME", help="Device file of --plan.")
@click.option("--compare", is_flag=True, help="Also draw full resolution, and few steps of it at equal cost.")
@click.option("--plot", metavar="FILE", help="Draw the samples, a row a method: .png, .svg or .pdf.")
@click.option("--gate", is_flag=True, help="Exit 4 when a transition leaves a wrong variance.")
@options.dtype
@options.output
@options.common  # fmt: skip
def command(session: Session, **given: Any) -> None:
    """Draw samples of MODEL with most steps at low resolution.

    MODEL is a folder of diffusers, digits: (the embedded model, the default), gaussian:SPEC.json, or var: (an embedded
    model that draws scale by scale).
    """
    from bntools.tools.sample_bottleneck import next_scale_command
    from bntools.tools.sample_bottleneck import request as requests

    if given["plot"] is not None:
        from bntools.core.report import pictures

        pictures.check(given["plot"])
    if next_scale_command.is_next_scale(given["model"]):
        return next_scale_command.run(session, given)
    wanted = requests.parse(session, given)
    if given["plan"] or session.dry_run:
        return _plan(session, wanted, given)
    return _draw(session, wanted, given)


def _plan(session: Session, wanted: Any, given: dict[str, Any]) -> None:
    from bntools.core.methods.devices import open_device
    from bntools.tools.sample_bottleneck import models, plan, table
    from bntools.tools.sample_bottleneck.stages.schedule import build_schedule

    device = open_device(given["machine"])
    field = models.open_for_plan(wanted.model)
    settings = wanted.settings_for(field)
    report = plan.plan(
        build_schedule(settings, field), field, settings,
        device=device, dtype=given["dtype"], batch=given["batch"] or 1,
    )  # fmt: skip
    _notes(session, report)
    terminal.emit(session, report, lambda console: table.draw_plan(console, report))


def _draw(session: Session, wanted: Any, given: dict[str, Any]) -> None:
    from bntools.core.artifact.writer import check_target
    from bntools.tools.sample_bottleneck import models, table
    from bntools.tools.sample_bottleneck.run import run

    shown = given["output"] == "-" and (session.json or sys.stdout.isatty())
    if not shown:
        check_target(given["output"], given["force"])
    session.apply()
    opened = models.open_field(wanted.model)
    settings = wanted.settings_for(opened.field)
    drawn = run(
        opened.field, settings, count=opened.count, compare=given["compare"],
        source=wanted.source(opened), progress=functools.partial(terminal.progress, session),
    )  # fmt: skip
    if given["preset"]:
        drawn.report["preset"] = {"name": given["preset"], "source": wanted.preset_source}
    _notes(session, drawn.report)
    if given["plot"] is not None:
        _plot(opened, drawn, given["plot"])
    if shown:
        terminal.emit(session, drawn.report, lambda console: table.draw(console, drawn.report))
    else:
        _write(session, opened, drawn, given)
    if given["gate"] and any(each["healthy"] is False for each in drawn.report["transitions"]):
        raise BnError("a transition left a wrong variance", "see transitions of the report", GATE)


def _write(session: Session, opened: Any, drawn: Any, given: dict[str, Any]) -> None:
    import json

    from bntools.core.artifact.writer import Writer, is_directory
    from bntools.core.datasets.samples import FILE, KIND, write_samples
    from bntools.core.model import history
    from bntools.tools.sample_bottleneck import pictures, table
    from bntools.tools.sample_bottleneck.request import facts_of

    report = drawn.report
    stage = history.entry(
        "sample-bottleneck", options.argv(), session.seed, [{"label": report["model"]}], session.started
    )
    with Writer(given["output"], KIND, force=given["force"]) as out:
        out.weights_file = FILE
        write_samples(out, drawn.tensors, opened.labels, facts=facts_of(report), history=[stage])
        out.describe("report", report)
        if is_directory(given["output"]):
            pixels = opened.pixels(drawn.tensors["x0"])
            if pixels is None:
                terminal.note(session, "no autoencoder: latents only, no pictures")
            out.files = {} if pixels is None else pictures.files(pixels)
            out.files["report.json"] = json.dumps(report, indent=1).encode() + b"\n"
    if sys.stderr.isatty() and not session.quiet:
        table.draw(terminal.console(stderr=True), report)
    terminal.manifest(out.manifest)


def _plot(opened: Any, drawn: Any, path: str) -> None:
    from bntools.tools.sample_bottleneck import pictures

    names = {row["tensor"]: row["name"] for row in drawn.report.get("compare", [])} or {
        "x0": drawn.report["method"]
    }
    rows = []
    for tensor, name in names.items():
        x = drawn.tensors[tensor][: pictures.MOST]
        pixels = opened.pixels(x)
        rows.append((name, x if pixels is None else pixels))
    pictures.draw(rows, path)


def _notes(session: Session, report: dict[str, Any]) -> None:
    for warning in report["warnings"]:
        terminal.note(session, f"warning: {warning['text']}")
