"""bntools ard-fit: parse, then fit, encode or sample; write, show, draw."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools ard-fit data.safetensors -o vae.safetensors
  bntools ard-fit mnist/ --max-dim 64 --restarts 3 --plot relevance.svg
  bntools ard-fit --encode other.safetensors vae.safetensors | bntools data-dim -
  bntools ard-fit vae.safetensors --sample 64 --plot grid.png
"""


@click.command("ard-fit", short_help="Count the latent dimensions that data need.", epilog=EPILOG)
@options.input_argument(example="bntools ard-fit data.safetensors -o vae.safetensors")
@option_blocks.tensor("tensor or array")
@click.option(
    "--max-dim", type=click.IntRange(1, 4096), help="Axes to start with.  [default: 64, or the width]"
)
@click.option("--arch", type=click.Choice(["auto", "linear", "mlp", "conv"]), default="auto", show_default=True,
              help="The networks; auto: a linear model where nothing else is better on held-out rows.")  # fmt: skip
@click.option("--method", type=click.Choice(["ard-vae", "vae", "bpca"]), default="ard-vae", show_default=True,
              help="How axes are turned off.")  # fmt: skip
@click.option("--decoder-var", metavar="learned|V|beta:B", default="learned", show_default=True,
              help="Variance of the decoder, in squared units of the data; beta:B is B / 2.")  # fmt: skip
@click.option("--prior-update", type=click.Choice(["step", "epoch"]), default="step", show_default=True,
              help="When the prior follows the code.")  # fmt: skip
@click.option("--score", type=click.Choice(["ablation", "kl", "snr", "jacobian"]), default="ablation",
              show_default=True, help="What puts the axes in order.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Share of the held-out error that leaving out axes may cost.")  # fmt: skip
@click.option("--explained", type=click.FloatRange(0, 1, min_open=True), default=0.99, show_default=True,
              help="Share of the paper's rule.")  # fmt: skip
@click.option(
    "--restarts", type=click.IntRange(1, 100), help="Seeds to fit from.  [default: 3; 1 with --paper]"
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Passes.  [default: 3000 steps, 20 to 200; 50 with --paper]"
)
@click.option("--batch", type=click.IntRange(2), help="Rows a step.  [default: 128; 100 with --paper]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Adam's rate.  [default: 1e-3; 5e-4]")
@click.option("--baseline/--no-baseline", default=True, show_default=True, help="Fit a plain VAE as well.")
@option_blocks.drop_bad
@click.option("--paper", is_flag=True, help="ARD-VAE as published: schedule, prior, loss, score, rule.")
@click.option(
    "--beta", type=click.FloatRange(0, min_open=True), help="With --paper: weight of the KL.  [default: 0.5]"
)
@click.option("--filters", type=click.IntRange(1, 1024), default=64, show_default=True,
              help="With --paper: filters of the first convolution.")  # fmt: skip
@click.option("--defect", "defects", multiple=True, type=click.Choice(["schedule", "generation"]),
              help="With --paper: a defect of its code to reproduce.")  # fmt: skip
@click.option("--encode", metavar="ROWS", help="INPUT is a model: write the codes of ROWS.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="INPUT is a model: draw N rows.")
@click.option(
    "--from-prior", is_flag=True, help="With --sample: draw from the prior, not the mixture of codes."
)
@option_blocks.plot("relevance and reconstructions, or samples")
@options.output
@options.common
def command(session: Session, source: str, output: str, force: bool, **given: Any) -> None:
    """Fit an autoencoder with a Gaussian code to the rows of INPUT, and count the axes of the code that they need.

    INPUT is safetensors, .npy, .npz, or a folder of IDX files or of activations; rows are vectors or images. The
    number is that of Gaussian axes: of a circle 2, of a sphere 3, of a torus in space 3.
    """
    if given["plot"] is not None:
        from bntools.core.report import pictures

        pictures.check(given["plot"])
    if given["encode"] is not None and given["sample"] is not None:
        raise usage("--encode and --sample", "one of them")
    if given["from_prior"] and given["sample"] is None:
        raise usage("--from-prior is of --sample", "--sample N")
    if given["encode"] is not None:
        return _encode(session, source, given["encode"], output, force)
    if given["sample"] is not None:
        return _sample(session, source, output, force, given)
    return _fit(session, source, output, force, given)


def _settings(session: Session, given: dict[str, Any]) -> Any:
    from bntools.tools.ard_fit.settings import Settings, validate

    settings = Settings(
        method=given["method"], arch=given["arch"], max_dim=given["max_dim"], variance=_variance(given["decoder_var"]),
        update=given["prior_update"], score=given["score"], tolerance=given["tolerance"],
        explained=given["explained"], restarts=given["restarts"] or (1 if given["paper"] else 3),
        epochs=given["epochs"], batch=given["batch"], rate=given["rate"], baseline=given["baseline"],
        paper=given["paper"], beta=given["beta"], filters=given["filters"], defects=given["defects"],
        bad="drop" if given["drop_bad"] else "raise", seed=session.seed,
    )  # fmt: skip
    validate(settings)
    return settings


def _variance(text: str) -> float | None:
    """learned, V, or beta:B."""
    if text == "learned":
        return None
    number = text.removeprefix("beta:")
    try:
        value = float(number) / (2 if number != text else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise usage(f"--decoder-var {text} is not learned, V or beta:B", "--decoder-var 0.25")
    return value


def _fit(session: Session, source: str, output: str, force: bool, given: dict[str, Any]) -> None:
    from bntools.core.artifact.writer import Writer, check_target
    from bntools.core.methods.vae import artifact
    from bntools.core.methods.vae.rows import open_rows
    from bntools.core.model import history
    from bntools.tools.ard_fit import table
    from bntools.tools.ard_fit.run import ard_fit

    settings = _settings(session, given)
    if output != "-" and not session.dry_run:
        check_target(output, force)
    session.apply()
    rows = open_rows(source, given["tensor"])
    if session.dry_run:
        return _plan(session, rows, settings)
    fit = ard_fit(rows, settings, functools.partial(terminal.progress, session))
    for warning in fit.report["warnings"]:
        terminal.note(session, warning["text"])
    if given["plot"] is not None:
        from bntools.tools.ard_fit.plot import draw_fit

        draw_fit(fit, given["plot"])
    if output == "-":
        return terminal.emit(session, fit.report, lambda console: table.draw(console, fit.report))
    stage = history.entry("ard-fit", options.argv(), session.seed, [{"label": rows.label}], session.started)
    with Writer(output, artifact.KIND, force=force) as out:
        out.describe("history", [*rows.history, stage])
        out.describe("report", table.short(fit.report))
        artifact.write(out, fit.model)
    if session.json:
        return terminal.emit(session, fit.report, lambda console: None)
    if not session.quiet:
        table.draw(terminal.console(stderr=True), fit.report)
    return terminal.manifest(out.manifest)


def _plan(session: Session, rows: Any, settings: Any) -> None:
    from bntools.tools.ard_fit.run import architecture, cost

    kind = architecture(rows, settings)
    report = {
        "kind": "plan",
        "rows": rows.rows,
        "shape": list(rows.shape),
        "arch": kind,
        **cost(rows, settings, kind),
    }
    shown = [[key, str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.facts("plan", shown)))


def _open_model(source: str) -> Any:
    from bntools.core.artifact.reader import Artifact
    from bntools.core.errors import bad_input
    from bntools.core.methods.vae import artifact
    from bntools.core.model.open import open_input

    opened = open_input(source)
    if not isinstance(opened, Artifact):
        raise bad_input(
            f"{source} is not an autoencoder", "bntools ard-fit DATA -o vae.safetensors makes one"
        )
    return artifact.read(opened)


def _encode(session: Session, source: str, other: str, output: str, force: bool) -> None:
    from bntools.core.datasets.activations_writer import ActivationsWriter
    from bntools.core.methods.vae.artifact import check_fits
    from bntools.core.methods.vae.rows import open_rows
    from bntools.core.model import history
    from bntools.tools.ard_fit.codes import pieces

    if source == other == "-":
        raise usage("model and rows both from standard input", "name one of them")
    session.apply()
    model = _open_model(source)
    rows = open_rows(other)
    check_fits(model, rows.shape, rows.label)
    if not model.relevant:
        raise usage(
            f"{model.label} keeps no axis: there is nothing to encode", "bntools info shows its report"
        )
    if session.dry_run:
        report = {
            "kind": "plan",
            "rows": rows.rows,
            "axes": model.relevant,
            "bytes": 4 * rows.rows * model.relevant,
        }
        return terminal.emit(session, report, lambda console: console.print(report))
    stage = history.entry("ard-fit", options.argv(), session.seed, [{"label": rows.label}], session.started)
    facts = {"site": "code", "encoder": "ard-fit", "axes": model.axes.tolist()}
    with (
        ActivationsWriter(
            output, facts=facts, history=[*rows.history, stage], dtype="float32", force=force
        ) as out,
        terminal.progress(session, "rows", rows.rows) as step,
    ):
        for x, columns in pieces(model, rows):
            out.add(x, columns)
            step(len(x))
    return terminal.manifest(out.manifest)


def _sample(session: Session, source: str, output: str, force: bool, given: dict[str, Any]) -> None:
    import sys

    from bntools.core.artifact.writer import Writer
    from bntools.core.model import history

    count, plot = given["sample"], given["plot"]
    if output == "-" and plot is None and sys.stdout.isatty():
        raise usage("samples are tensors, and standard output is a terminal", "--plot grid.png, or -o FILE")
    session.apply()
    model = _open_model(source)
    if session.dry_run:
        report = {"kind": "plan", "samples": count, "shape": list(model.shape)}
        return terminal.emit(session, report, lambda console: console.print(report))
    samples = model.sample(count, session.seed, given["from_prior"])
    if plot is not None:
        from bntools.tools.ard_fit.plot import draw_samples

        draw_samples(samples, plot)
    if output == "-" and (plot is not None or sys.stdout.isatty()):
        return None
    stage = history.entry("ard-fit", options.argv(), session.seed, [{"label": model.label}], session.started)
    with Writer(output, "samples", force=force) as out:
        out.describe("history", [*model.history, stage])
        out.add("x", samples)
    return terminal.manifest(out.manifest)
