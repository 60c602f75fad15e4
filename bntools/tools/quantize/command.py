"""bntools quantize: parse, build the settings, quantize, write."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from bntools import dispatch, options, terminal
from bntools.core import EMBEDDED
from bntools.options import Session
from bntools.tools.quantize.command_line.flags import quantize_options

if TYPE_CHECKING:
    from bntools.core.artifact.writer import Writer
    from bntools.core.model.model import Model
    from bntools.tools.quantize.command_line.parse import Flags
    from bntools.tools.quantize.plan import Task
    from bntools.tools.quantize.settings import RunOptions

EPILOG = """\b
Examples:
  bntools quantize --per-ic --bits 3 | bntools eval
  bntools quantize smollm2/ --budget 3.25 -o q/ | bntools eval
  bntools quantize smollm2/ --budget 3.25 --preset fast -o q.safetensors
  bntools quantize smollm2/ --bits 3 --method gptq --grid weighted -o q/
  bntools quantize smollm2/ --code entropy --budget 60MB -o small.safetensors
  bntools quantize smollm2/ --dim ada --override 'v_proj=bits:4' > q.safetensors
"""


@click.command(
    "quantize",
    cls=options.Sectioned,
    short_help="Quantize the linear weights of a model to 2 to 8 bits.",
    epilog=EPILOG,
)
@options.input_argument(default=EMBEDDED)
@options.output
@quantize_options
@options.section("Big jobs", options.work, options.shard, options.jobs)
@options.common
@dispatch.divided(
    dispatch.Division(("source", "calib"), library="bntools.tools.quantize.fixed_run", units=True)
)
def command(session: Session, source: str, output: str, force: bool, **given: Any) -> None:
    """Quantize the linear weights of a model: rounded, by GPTQ, or behind an entropy coder.

    INPUT is a directory in Hugging Face layout, a .safetensors, .index.json or .gguf file, org/name, default: (the
    small embedded model, also when INPUT is left out), or - for standard input.
    """
    from bntools.core.artifact.writer import Writer, check_target
    from bntools.core.model import checkpoint
    from bntools.core.model.open import open_model
    from bntools.tools.quantize.command_line.parse import Flags

    flags = Flags(**given, named=_named([*given, "source"]))
    _parsed(session, flags, 0)  # refuse what makes no sense before anything is read
    if not session.dry_run:
        check_target(output, force)
    if source == EMBEDDED and "source" not in flags.named:
        terminal.note(session, "no model named: using the small embedded one (default:)")
    model = open_model(source)
    checkpoint.check(model)
    task, run = _task(session, flags, model)
    terminal.note_left_behind(session, model)
    if session.dry_run:
        return _dry_run(session, task)
    session.apply()
    with Writer(output, "model-part" if run.shard else "model", force=force) as out:
        report = _quantized(task, run, out)
    terminal.manifest(out.manifest)
    return terminal.note(session, _summary(report, run, out.manifest))


def _named(options: list[str]) -> frozenset[str]:
    """The options that are on the command line or in the environment."""
    source = click.get_current_context().get_parameter_source
    return frozenset(name for name in options if source(name) != click.core.ParameterSource.DEFAULT)


def _task(session: Session, flags: Flags, model: Model) -> tuple[Task, RunOptions]:
    """What is done with a model, and how."""
    from bntools.tools.quantize import windows
    from bntools.tools.quantize.budget import left_dense
    from bntools.tools.quantize.command_line import parse
    from bntools.tools.quantize.plan import task_of
    from bntools.tools.quantize.settings import RunOptions

    weights = sum(model.entries[name].numel for name in model.linears if name in model.entries)
    flags, settings, command = _parsed(session, flags, weights)
    if flags.calib == "none":
        settings = windows.without_text(settings, model, parse.insists(flags))
    task = task_of(model, settings)
    parse.check(task)
    terminal.note(session, left_dense(model, task.items) if flags.fixed else "")
    return task, RunOptions(
        "" if session.dry_run else session.torch_device(), flags.work, flags.shard, flags.gather,
        functools.partial(terminal.progress, session), functools.partial(terminal.note, session),
        functools.partial(terminal.detail, session), command, session.started,
    )  # fmt: skip


def _parsed(session: Session, flags: Flags, weights: int) -> tuple[Flags, Any, tuple[str, ...]]:
    """Flags with their preset, the settings they make, and the command line for the history."""
    from bntools.tools.quantize.command_line import parse, presets

    flags, words = presets.expand(flags, weights)
    flags = parse.without_text(flags)
    return flags, parse.settings_of(flags, session.seed), presets.written_out(options.argv(), words)


def _quantized(task: Task, run: RunOptions, out: Writer) -> dict[str, Any]:
    if task.settings.entropy is None:
        from bntools.tools.quantize.fixed_run import fixed

        return fixed(task, run, out)
    from bntools.tools.quantize.entropy_run import entropy

    return entropy(task, run, out)


def _summary(report: dict[str, Any], run: RunOptions, manifest: dict[str, Any] | None) -> str:
    """One line for a person."""
    linear, whole = report["bits_per_weight"]["linear"], report["bits_per_weight"]["model"]
    dims = ", ".join(f"{count} {dim}" for dim, count in report["dims"].items())
    over = "" if run.shard else f", {whole:.2f} over the whole model"
    over += f", {terminal.megabytes(manifest['bytes'])}" if manifest else ""
    return f"{report['tensors']} tensors ({dims}), {linear:.2f} bits per weight{over}"


def _dry_run(session: Session, task: Task) -> None:
    import time

    from bntools.tools.quantize.cost.plan import plan_of

    session.apply()
    report = plan_of(task, time.time() - session.started)
    rows = [
        ["tensors to quantize", str(report["tensors"])],
        ["reads", terminal.megabytes(report["reads_bytes"])],
        ["writes, about", terminal.megabytes(report["writes_bytes"])],
        ["memory, about", terminal.megabytes(report["memory_bytes"])],
        ["seconds, about", terminal.three(report["seconds"])],
        ["bits per weight (linear)", f"{report['bits_per_weight']['linear']:.3f}"],
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
