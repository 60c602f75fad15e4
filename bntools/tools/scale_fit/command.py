"""bntools scale-fit: read the runs, fit, show, draw."""

from __future__ import annotations

import functools
import sys
from typing import Any

import click

from bntools import dispatch, option_blocks, options, terminal
from bntools.core.errors import bad_input, usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools scale-fit runs.jsonl --plot fit.svg
  bntools scale-fit runs.jsonl --compute 1e24 --predict N=7e10,D=1.4e12
  bntools data-dim x.safetensors > dim.json; bntools scale-fit runs.jsonl --data-dim dim.json
"""


@click.command("scale-fit", short_help="Fit a scaling law to training runs.", epilog=EPILOG)
@options.input_argument(example="bntools scale-fit runs.jsonl")
@click.option(
    "--law",
    type=click.Choice(["auto", "chinchilla", "kaplan", "power"]),
    default="auto",
    show_default=True,
    help="The form; auto: chinchilla if N and D vary, else power.",
)
@click.option(
    "--x", type=click.Choice(["N", "D", "C"]), help="Variable of the power law.  [default: what varies]"
)
@click.option(
    "--irreducible/--no-irreducible",
    default=None,
    help="Fit E, or hold it at 0.  [default: fit it, but for kaplan]",
)
@click.option(
    "--columns", metavar="N=KEY,...", help="Keys of N, D, C and loss in a line.  [default: these names]"
)
@click.option("--skip-bad", is_flag=True, help="Report a bad line and go on.")
@click.option(
    "--delta",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Huber's delta, in log loss.",
)
@click.option(
    "--starts",
    type=click.IntRange(1, 1000),
    default=24,
    show_default=True,
    help="Points the search is started from.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Replicates for the intervals; under 20: none.",
)
@click.option(
    "--resample",
    type=click.Choice(["auto", "weights", "runs", "noise"]),
    default="auto",
    show_default=True,
    help="Replicates by random weights of runs, runs drawn anew, or noise about the law; auto: noise if runs are few.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Probability content of the intervals.",
)
@click.option(
    "--compute",
    multiple=True,
    type=click.FloatRange(0, min_open=True),
    metavar="FLOPS",
    help="Divide this budget between N and D; repeatable.",
)
@click.option("--predict", multiple=True, metavar="N=..,D=..", help="Predict the loss there; repeatable.")
@click.option(
    "--data-dim", metavar="VALUE|FILE", help="Dimension of the data, or a report of data-dim, for the regime."
)
@click.option(
    "--features", metavar="FILE", help="Activations [samples, features] whose spectrum gives an exponent."
)
@click.option("--tensor", metavar="NAME", help="The matrix in --features, if there are several.")
@option_blocks.plot("runs, law and residuals")
@option_blocks.replacing("picture or part")
@options.part_output
@options.run_folder
@options.shard
@options.jobs
@options.common
@dispatch.divided(
    dispatch.Division(late=("level", "compute", "predict", "data_dim", "features", "tensor"),
                      library="bntools.tools.scale_fit.parts")
)  # fmt: skip
def command(session: Session, source: str, **given: Any) -> None:
    """Fit L = E + A N^-alpha + B D^-beta to the lines {"N": .., "D": .., "loss": ..} of INPUT.

    INPUT is a .jsonl file, or - for standard input, also when left out. C, the FLOPs of training, may stand for N or D.
    """
    from bntools.tools.scale_fit import parts
    from bntools.tools.scale_fit.fit import Settings, choose_law, fit_scaling_law
    from bntools.tools.scale_fit.report import fit_report
    from bntools.tools.scale_fit.runs import assignment, column_names

    names = column_names(given["columns"])
    points = [assignment("--predict", text) for text in given["predict"]]
    if given["plot"]:
        from bntools.core.report import pictures

        pictures.check(given["plot"], given["force"])
    data = _dimension(given["data_dim"])
    fields = {name: given[name] for name in Settings.__dataclass_fields__ if name in given}
    settings = Settings(**fields, seed=session.seed, threads=session.threads)
    runs, skipped = _read(session, source, names, given["skip_bad"])
    law, variables = choose_law(runs, settings)
    _check_uses(law, variables, points, given["compute"])
    kernel = _kernel(given["features"], given["tensor"]) if not session.dry_run else None
    if session.dry_run:
        return _plan(session, runs, law, variables, settings, given)
    with terminal.progress(session, "bootstrap", settings.bootstrap) as advance:
        if given["shard"]:
            place = given["output"], given["force"]
            return terminal.manifest(parts.write(runs, settings, given["shard"], place, advance))
        samples = parts.read(given["gather"], runs, settings) if given["gather"] else None
        fit = fit_scaling_law(runs, settings, advance, samples=samples)
    result = fit_report(fit, compute=list(given["compute"]), points=points, data=data, kernel=kernel)
    result["skipped"] = skipped
    if given["plot"]:
        from bntools.tools.scale_fit.plot import draw

        draw(fit, given["plot"], given["force"])
    for warning in result["warnings"]:
        terminal.note(session, f"warning: {warning['text']}")
    return terminal.emit(session, result, functools.partial(_draw, result=result, source=source))


def _read(session: Session, source: str, names: dict[str, str], skip_bad: bool) -> tuple[Any, int]:
    """The runs of INPUT and how many lines were skipped."""
    from bntools.tools.scale_fit.runs import read_runs, refuse

    skipped = [0]

    def skip(number: int, reason: str) -> None:
        skipped[0] += 1
        terminal.note(session, f"line {number} skipped: {reason}")

    on_bad = skip if skip_bad else refuse
    if source == "-":
        return read_runs(sys.stdin.buffer, names, on_bad), skipped[0]
    try:
        with open(source, "rb") as lines:
            return read_runs(lines, names, on_bad), skipped[0]
    except OSError as error:
        raise usage(
            f"cannot read {source}: {error.strerror}", "a .jsonl file, or - for standard input"
        ) from None


def _dimension(given: str | None) -> Any:
    """--data-dim as a number or a file."""
    if given is None:
        return None
    import math

    from bntools.core.artifact.reader import parse_json
    from bntools.tools.scale_fit.regime import Dimension, dimension

    try:
        value = float(given)
    except ValueError:
        try:
            with open(given, "rb") as file:
                text = file.read()
        except OSError as error:
            hint = "a number, or the report of bntools data-dim"
            raise usage(f"--data-dim {given}: {error.strerror}", hint) from None
        return dimension(parse_json(text, dict, given), given)
    if not (math.isfinite(value) and value > 0):
        raise usage(f"--data-dim {given} is not a number above 0", "--data-dim 12")
    return Dimension(value, value, value)


def _check_uses(law: Any, variables: tuple[str, ...], points: list[Any], compute: tuple[float, ...]) -> None:
    """Refuse points that lack a variable of the law, and budgets a law of one variable cannot divide."""
    for point in points:
        missing = [name for name in variables if name not in point]
        if missing:
            wanted = ",".join(f"{name}=.." for name in variables)
            raise usage(f"--predict lacks {missing[0]}, a variable of this law", f"--predict {wanted}")
    if compute and not law.joint:
        raise usage(
            f"--compute needs a law of N and D; this one is of {variables[0]}",
            "--law chinchilla, and runs that vary both",
        )


def _kernel(path: str | None, tensor: str | None) -> Any:
    """The spectrum of --features."""
    if path is None:
        if tensor is not None:
            raise usage("--tensor without --features", "--features activations.safetensors")
        return None
    from bntools.core.artifact.reader import Artifact
    from bntools.core.model.open import open_input
    from bntools.tools.scale_fit.spectrum import features, spectrum

    opened = open_input(path)
    if not isinstance(opened, Artifact):
        raise bad_input(f"{path} is no safetensors file", "a file with a matrix [samples, features]")
    with opened:
        return spectrum(features(opened, tensor))


def _plan(
    session: Session, runs: Any, law: Any, variables: tuple[str, ...], settings: Any, given: dict[str, Any]
) -> None:
    """What would be fitted, and about how long it takes."""
    work = len(runs.loss) * (40 * settings.bootstrap + 1600 + 200 * settings.starts)
    report = {
        "kind": "plan", "law": law.name, "formula": law.formula, "variables": list(variables), "runs": len(runs.loss),
        "starts": settings.starts, "bootstrap": settings.bootstrap, "seconds": 0.2 + 5e-8 * work,
        "writes": given["plot"],
    }  # fmt: skip
    rows = [
        [key, terminal.three(value) if key == "seconds" else str(value)]
        for key, value in report.items()
        if key != "kind"
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _draw(console: Any, result: dict[str, Any], source: str) -> None:
    from bntools.tools.scale_fit.table import tables

    for part in tables(result, "standard input" if source == "-" else source):
        console.print(part)
