"""MODEL `var:` on the command line: which options mean something to it, what is written and shown."""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session
from bntools.tools.sample_bottleneck.next_scale import ScaleDrawn, ScaleSettings, facts_of, plan, sample

three = terminal.three
_MEANINGLESS = {
    "prompts": (), "prompt_file": None, "size": None, "preset": None, "stages": None, "sigmas": None,
    "strengths": None, "shifts": None, "c": None, "steps": None, "target_speedup": None, "spectrum": None,
    "cache": "none", "attention": None, "latents": None, "gate": False, "calibrate": False, "method": "spectral",
}  # fmt: skip
"""Options of diffusion, and their values where nobody gave them."""


def is_next_scale(model: str) -> bool:
    """Whether MODEL is the embedded next-scale model or a file of one."""
    from bntools.core.artifact.reader import open_path
    from bntools.core.diffusion.next_scale.model import KIND, NAME

    if model == NAME or not model.endswith(".safetensors"):
        return model == NAME
    with open_path(model) as file:
        return file.kind == KIND


def run(session: Session, given: dict[str, Any]) -> None:
    """Draw, write and show, or with --plan only price."""
    settings = settings_of(session, given)
    if given["plan"] or session.dry_run:
        report = plan(settings)
        return terminal.emit(session, report, lambda console: draw(console, report))
    from bntools.core.artifact.writer import check_target

    shown = given["output"] == "-" and (session.json or sys.stdout.isatty())
    if not shown:
        check_target(given["output"], given["force"])
    session.apply()
    drawn = sample(settings, functools.partial(terminal.progress, session))
    if given["plot"] is not None:
        _plot(drawn, given["plot"])
    if shown:
        return terminal.emit(session, drawn.report, lambda console: draw(console, drawn.report))
    return _write(session, settings, drawn, given)


def settings_of(session: Session, given: dict[str, Any]) -> ScaleSettings:
    """Raises BnError (exit 2) for options that mean nothing to a next-scale model."""
    from bntools.core.diffusion.digits import parse_labels

    for name, default in _MEANINGLESS.items():
        if given.get(name, default) != default:
            option = {"prompts": "prompt", "c": "noise-c"}.get(name, name).replace("_", "-")
            raise usage(
                f"--{option} means nothing to a next-scale model", "--cond, --depth, --guidance, --top-p"
            )
    labels = parse_labels(given["cond"] or "all", given["count"])
    return ScaleSettings(
        tuple(labels.tolist()), given["model"], given["depth"], temperature=given["temperature"],
        top_p=given["top_p"], guidance=1.0 if given["guidance"] is None else given["guidance"], seed=session.seed,
        compare=given["compare"],
        **({"batch": given["batch"]} if given["batch"] else {}),
    )  # fmt: skip


def _write(session: Session, settings: ScaleSettings, drawn: ScaleDrawn, given: dict[str, Any]) -> None:
    from bntools.core.artifact.writer import Writer, is_directory
    from bntools.core.datasets.samples import FILE, KIND, write_samples
    from bntools.core.model import history
    from bntools.tools.sample_bottleneck import pictures

    report = drawn.report
    stage = history.entry(
        "sample-bottleneck", options.argv(), session.seed, [{"label": report["model"]}], session.started
    )
    with Writer(given["output"], KIND, force=given["force"]) as out:
        out.weights_file = FILE
        write_samples(out, drawn.tensors, settings.labels, facts=facts_of(report), history=[stage])
        out.describe("report", report)
        if is_directory(given["output"]):
            out.files = pictures.files(drawn.tensors["x0"])
            out.files["report.json"] = json.dumps(report, indent=1).encode() + b"\n"
    if sys.stderr.isatty() and not session.quiet:
        draw(terminal.console(stderr=True), report)
    terminal.manifest(out.manifest)


def _plot(drawn: ScaleDrawn, path: str) -> None:
    from bntools.tools.sample_bottleneck import pictures

    names = {row["tensor"]: row["name"] for row in drawn.report.get("compare", [])} or {"x0": "schedule"}
    pictures.draw([(name, drawn.tensors[tensor][: pictures.MOST]) for tensor, name in names.items()], path)


def draw(console: Any, report: dict[str, Any]) -> None:
    """A row a scale, and a row a way of drawing."""
    whole = report["totals"]["flops"]
    rows = [
        [f"{each['side']} x {each['side']}", str(each["tokens"]), f"{each['depth']} of {report['layers']}",
         f"{100 * each['flops'] / whole:.0f} %"]
        for each in report["scales"]
    ]  # fmt: skip
    console.print(terminal.table(["scale", "tokens", "layers", "share of cost"], rows))
    if "compare" in report:
        rows = [
            [row["name"], three(row["cost"]), three(row["cache_bytes"] / 1000), three(row["cpu"]),
             three(row["speedup"]), three(row["distance"])]
            for row in report["compare"]
        ]  # fmt: skip
        console.print(terminal.table(["", "cost", "cache kB", "CPU s", "times faster", "from full"], rows))
    console.print(
        f"{report['count']:,} images at {three(report['totals']['cost'])} of full depth's cost; keys and values of "
        f"{report['totals']['cache_bytes'] / 1000:.0f} kB an image, in full "
        f"{report['baseline']['cache_bytes'] / 1000:.0f}"
    )
