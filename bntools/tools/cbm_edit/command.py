"""bntools cbm-edit: read, edit, write, show what changed."""

from __future__ import annotations

from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools cbm-edit cbm.safetensors --prune "boat:water" --normalize -o fixed.safetensors
  bntools cbm-edit cbm.safetensors --scale "background=0" | bntools eval - --data test.safetensors
  bntools cbm-edit cbm.safetensors --adapt few.safetensors --guard source.safetensors -o adapted.safetensors
"""


def _pairs(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    result = []
    for text in values:
        name, colon, concept = text.partition(":")
        if not colon or not name or not concept:
            raise usage(
                f"--prune {text} is not CLASS:CONCEPT", '--prune "boat:water", or "*:water" in all classes'
            )
        result.append((name, concept))
    return result


def _factors(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    import math

    result = {}
    for text in values:
        name, _sign, number = text.rpartition("=")
        try:
            result[name] = float(number)
        except ValueError:
            name = ""
        if not name or not math.isfinite(result[name]):
            raise usage(f"--scale {text} is not CONCEPT=FACTOR", "--scale water=0.5")
    return result


@click.command("cbm-edit", short_help="Edit a concept bottleneck without training.", epilog=EPILOG)
@options.input_argument(example="bntools cbm-edit cbm.safetensors --prune boat:water -o fixed.safetensors")
@options.output
@click.option(
    "--prune",
    "pairs",
    multiple=True,
    callback=_pairs,
    metavar="CLASS:CONCEPT",
    help="Take a concept out of a class; class *: out of all.",
)
@click.option("--normalize", is_flag=True, help="With --prune: what is left of the class keeps its l1 norm.")
@click.option(
    "--scale",
    "factors",
    multiple=True,
    callback=_factors,
    metavar="CONCEPT=FACTOR",
    help="Multiply a concept's scores; 0: off.",
)
@click.option("--drop-residual", is_flag=True, help="Leave only what goes through concepts.")
@click.option(
    "--adapt", metavar="FILE", help="A few labelled rows of a new domain: mask and amplify concepts for it."
)
@click.option("--guard", metavar="FILE", help="Labelled rows that must not get worse.")
@click.option(
    "--epsilon",
    type=click.FloatRange(0, 1),
    default=0.002,
    show_default=True,
    help="With --guard: accuracy that may be lost.",
)
@options.common
def command(session: Session, source: str, output: str, force: bool, pairs: list[tuple[str, str]], normalize: bool,
            factors: dict[str, float], drop_residual: bool, adapt: str | None, guard: str | None,
            epsilon: float) -> None:  # fmt: skip
    """Edit the concept bottleneck INPUT; every change is listed in the report and in the artifact's history.

    Edits are made in the order prune, scale, residual, adapt. A path as output: the report goes to standard output.
    """
    import sys

    from bntools.core.artifact.writer import STDOUT, check_target

    if not (pairs or factors or drop_residual or adapt):
        raise usage("nothing to edit", "--prune, --scale, --drop-residual or --adapt")
    if normalize and not pairs:
        raise usage("--normalize goes with --prune", '--prune "boat:water" --normalize')
    if not session.dry_run and output == STDOUT and sys.stdout.isatty():
        raise usage("an artifact is not written to a terminal", "-o fixed.safetensors, or a pipe")
    if output != STDOUT:
        check_target(output, force)
    what = {"pairs": pairs, "normalize": normalize, "factors": factors, "residual": drop_residual,
            "adapt": adapt, "guard": guard, "epsilon": epsilon}  # fmt: skip
    _run(session, source, (output, force), what)


def _run(session: Session, source: str, target: tuple[str, bool], what: dict[str, Any]) -> None:
    from bntools.core.artifact.writer import STDOUT, Writer
    from bntools.core.methods.cbm import file, inputs
    from bntools.core.model import history

    with inputs.open_tensors(source) as opened:
        model, past = file.read(opened), opened.history
        origin = {"label": opened.label, "sha256": opened.sha256()}
    edited, report = _edit(model, what)
    if session.dry_run:
        return terminal.emit(session, {**report, "dry_run": True}, lambda console: _draw(console, report))
    with Writer(target[0], file.KIND, force=target[1]) as out:
        file.write(out, edited)
        stage = history.entry("cbm-edit", options.argv(), session.seed, [origin], session.started)
        out.describe("history", [*past, {**stage, "changes": report["changes"]}])
        out.describe("report", report)
    if target[0] == STDOUT:
        return terminal.note(session, f"{len(report['changes'])} changes")
    report["output"] = out.manifest
    return terminal.emit(session, report, lambda console: _draw(console, report))


def _edit(model: Any, what: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from bntools.core.methods.cbm import inputs
    from bntools.core.methods.cbm.score import check, class_indices
    from bntools.tools.cbm_edit import edit
    from bntools.tools.cbm_edit.adapt import adapt

    first, changes = model, []
    guard = inputs.read_embeddings(what["guard"]) if what["guard"] else None
    if what["pairs"]:
        model, made = edit.prune(model, what["pairs"], normalize=what["normalize"])
        changes += made
    if what["factors"]:
        model, made = edit.scale(model, what["factors"])
        changes += made
    if what["residual"]:
        model, made = edit.drop_residual(model)
        changes += made
    report: dict[str, Any] = {"kind": "cbm-edit", "nec": model.nec}
    if what["adapt"]:
        model, adapted = adapt(model, inputs.read_embeddings(what["adapt"]), guard, what["epsilon"])
        changes += adapted.pop("changes")
        report["adaptation"] = adapted
    if guard is not None:
        check(first, guard)
        y = class_indices(first, guard)
        report["guard"] = {
            name: float((m.predict(guard.x) == y).mean()) for name, m in (("before", first), ("after", model))
        }
    return model, {**report, "nec": model.nec, "changes": changes}


def _draw(console: Any, report: dict[str, Any]) -> None:
    rows = [
        [c["edit"], c.get("class", "all"), c.get("concept", ""), f"{c['from']:+.3f}" if "from" in c else "",
         f"{c['to']:+.3f}" if "to" in c else ""]
        for c in report["changes"]
    ]  # fmt: skip
    console.print(
        terminal.table(["edit", "class", "concept", "from", "to"], rows or [["none", "", "", "", ""]])
    )
    if "adaptation" in report:
        a = report["adaptation"]
        console.print(
            f"{a['rows']} rows: accuracy {100 * a['accuracy_before']:.1f} % before, "
            f"{100 * a['left_one_out']:.1f} % leaving one out"
        )
    if "guard" in report:
        g = report["guard"]
        console.print(f"guard: {100 * g['before']:.1f} % before, {100 * g['after']:.1f} % after")
