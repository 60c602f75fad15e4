"""Fixed codes from settings to a written artifact: calibrate, share out bits, choose dimensions, code, describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from bntools.core.artifact.writer import Writer, compressed, is_directory
from bntools.core.errors import usage
from bntools.core.importance.sensitivity import sweep_tokens
from bntools.core.model import history
from bntools.core.packing import grouped
from bntools.core.training import distill
from bntools.core.work.folder import Work
from bntools.tools.quantize import folders, units
from bntools.tools.quantize.budget import available, enough
from bntools.tools.quantize.fixed import allocate, calibrated, factored, fisher, rounding
from bntools.tools.quantize.fixed.asymmetric import asymmetric
from bntools.tools.quantize.fixed.fisher import Moments
from bntools.tools.quantize.plan import Choice, Item, Result, Task
from bntools.tools.quantize.report import add_all, describe, history_entry, line, quantization_json, summarize
from bntools.tools.quantize.settings import RunOptions
from bntools.tools.quantize.windows import Calibration, calibration, windows_of


class _Inputs(NamedTuple):
    """What is known of a model's inputs before its weights are coded."""

    windows: Tensor | None
    moments: Moments | None
    choices: dict[str, Choice]


def fixed(task: Task, run: RunOptions, out: Writer) -> dict[str, Any]:
    """Codes of a fixed number of bits, or one part of them; returns the report."""
    source = None if run.shard else history.fingerprint(task.model)
    text = calibration(task)
    if run.in_parts and text:
        raise usage("only quantization without calibration is cut into parts", "--calib none --method rtn")
    if task.settings.budget and not run.in_parts:
        task, note = enough(task, _room(task, out))
        run.note(note)
    task, inputs, work = _inputs(task, text, run, out)
    stream = _advanced(task, run, _stream(task, inputs, run, work))
    results, trained = [], {}
    if task.settings.distill:
        assert inputs.windows is not None
        coded = list(stream)
        coded, trained = factored.factored(
            task, coded, inputs.windows, device=run.device, progress=run.progress
        )
        stream = iter(coded)
    for result in stream:
        add_all(out, result)
        result.tensors.clear()
        results.append(result)
        run.detail(line(result))
    report = {**summarize(results, task.model), "settings": task.settings.as_json(), "calib": task.settings.calib,
              "calibration": text.report(), **({"distill": trained} if trained else {})}  # fmt: skip
    if run.shard:
        out.files = {grouped.FILE: quantization_json(results)}
        out.describe("part", units.part_of(task, run.shard))
        return report
    assert source is not None
    grid = task.settings.grid
    kind = {"bits": grid.bits, "group_size": grid.group, "dim": grid.dim}
    entry = history_entry(run, task.settings.seed, source.result())
    describe(task.model, results, report=report, kind=kind, entry=entry, out=out)
    return report


def _inputs(task: Task, text: Calibration, run: RunOptions, out: Writer) -> tuple[Task, _Inputs, Work | None]:
    """Calibrate: the task with its bits shared out or cut to a part, what is known, and the folder of the coding."""
    swept, work = folders.of_fixed(task, text, run)
    windows = windows_of(text, task.model, task.settings.seed, run, swept or work)
    moments = _swept(task, windows, run, swept)
    if task.settings.budget and not run.gather:
        task = _allocated(task, moments, run, out)
    if run.shard:
        task = task.of(units.share(task, run.shard))
    return task, _Inputs(windows, moments, _choices(task, windows, run, work)), work


def _room(task: Task, out: Writer) -> int:
    """Bytes that the weights may take of the budget."""
    small = not is_directory(out.target)
    files = sum(
        len(compressed(name, data)[1] if small and task.settings.unit == "bytes" else data)
        for name, data in task.model.files.items()
    )
    names = [item.name for item in task.chosen]
    return available(task, files, factored.reserve(task.model, names) if task.settings.distill else 0)


def _swept(task: Task, windows: Tensor | None, run: RunOptions, work: Work | None) -> Moments | None:
    """What a sweep tells of the linears, where the method or the budget asks for it and there is a text."""
    if windows is None or not task.settings.sweeps:
        return None
    with run.progress("calibrating", sweep_tokens(task.model, windows)) as step:
        return fisher.swept(task, windows, device=run.device, step=step, work=work)


def _allocated(task: Task, moments: Moments | None, run: RunOptions, out: Writer) -> Task:
    """The task with bits and groups that fit the budget."""
    out.compress = task.settings.unit == "bytes"
    room = _room(task, out)
    with run.progress("allocating bits", len(task.chosen)) as step:
        return task.of(allocate.choose(task, moments, room, step))


def _choices(task: Task, windows: Tensor | None, run: RunOptions, work: Work | None) -> dict[str, Choice]:
    """The errors of both dimensions of each weight whose dimension is chosen before it is coded."""
    adaptive = sum(1 for item in task.chosen if item.grid and item.grid.dim == "ada")
    if task.settings.choose == "final" or run.gather:
        adaptive = 0
    with run.progress("choosing dimensions", adaptive) as step:
        return units.choices(
            work,
            lambda: rounding.choose(task, windows, device=run.device, step=step) if adaptive else {},
        )


def _stream(task: Task, inputs: _Inputs, run: RunOptions, work: Work | None) -> Iterator[Result]:
    """Results of the method asked for, as they come."""
    settings, windows, moments = task.settings, inputs.windows, inputs.moments
    if settings.distill and windows is not None:
        windows = distill.training(windows, settings.distill, settings.seed)
    if run.gather:
        return units.gathered(task, run.gather)
    if settings.method == "gptq" and moments is not None and not settings.compensate:
        return fisher.coded(task, inputs.choices, moments, work)
    if settings.method == "gptq":
        assert windows is not None
        if settings.compensate:
            return asymmetric(task, inputs.choices, windows, moments=moments, device=run.device)
        return calibrated.calibrated(task, inputs.choices, windows, device=run.device, work=work)
    importance = moments.squares() if moments is not None and settings.search == "weighted" else None
    if importance is None and settings.search == "weighted" and windows is not None:
        with run.progress("calibrating", windows.numel()) as step:
            importance = units.importance(
                work, lambda: rounding.input_moments(task, windows, run.device, step)
            )

    def quantized(rest: list[Item]) -> Iterator[Result]:
        return rounding.quantize(task.of(rest), inputs.choices, importance)

    return units.resumed(work, task.items, quantized)


def _advanced(task: Task, run: RunOptions, stream: Iterator[Result]) -> Iterator[Result]:
    """The results of a stream, with their progress."""
    total = sum(task.model.entries[item.name].nbytes for item in task.items)
    with run.progress("quantizing", total) as step:
        for result in stream:
            yield result
            step(task.model.entries[result.name].nbytes)
