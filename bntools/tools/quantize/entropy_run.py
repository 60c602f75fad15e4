"""The entropy code from settings to a written artifact: calibrate, code to the size, distil, describe."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from bntools.core.artifact.writer import Writer, compressed
from bntools.core.importance.sensitivity import sweep_tokens
from bntools.core.model import history
from bntools.core.packing.entropy import TABLES
from bntools.core.training import distill
from bntools.tools.quantize import folders
from bntools.tools.quantize.budget import left_dense
from bntools.tools.quantize.entropy import distilled, whole_model
from bntools.tools.quantize.entropy.compensated import compensated
from bntools.tools.quantize.entropy.distilled import Distilled
from bntools.tools.quantize.entropy.size import solve
from bntools.tools.quantize.entropy.whole_model import Coded, Goal, Prepared
from bntools.tools.quantize.plan import Task
from bntools.tools.quantize.report import add_all, describe, history_entry, line
from bntools.tools.quantize.settings import RunOptions
from bntools.tools.quantize.windows import calibration, windows_of


def entropy(task: Task, run: RunOptions, out: Writer) -> dict[str, Any]:
    """Levels of any size behind an entropy coder, at the size asked; returns the report."""
    model, asked = task.model, task.entropy
    source = history.fingerprint(model)
    text = calibration(task)
    work = folders.of_entropy(task, text, run)
    windows = windows_of(text, model, asked.seed, run, work)
    assert windows is not None
    with run.progress("calibrating", sweep_tokens(model, windows)) as step:
        prepared = whole_model.prepare(task, windows, device=run.device, step=step, work=work)
    run.note(left_dense(model, task.items, prepared.names))
    out.compress = True
    files = sum(len(compressed(name, data)[1]) for name, data in model.files.items())
    goal = whole_model.goal(task, prepared, files)
    written = _coded(task, prepared, goal, windows, run)
    tables = written.coded.tables
    out.add(TABLES, torch.frombuffer(bytearray(tables), dtype=torch.uint8))
    results = []
    for result in whole_model.results(task, prepared, written.coded, written.gains):
        add_all(out, result)
        results.append(result)
        run.detail(line(result))
    report = {
        **whole_model.summarize(model, results, len(tables), written.coded.trial), "settings": asdict(asked),
        "calib": task.settings.calib, "calib_tokens": windows.numel(), "calibration": text.report(),
        **({"distill": written.report} if asked.distill else {}),
    }  # fmt: skip
    entry = history_entry(run, asked.seed, source.result())
    describe(model, results, report=report, kind={"code": "entropy"}, entry=entry, out=out)
    return report


def _coded(task: Task, prepared: Prepared, goal: Goal, windows: Tensor, run: RunOptions) -> Distilled:
    """Levels that fit the goal, distilled where that is asked for."""
    model, asked = task.model, task.entropy
    spare = distilled.reserve(model, prepared.names) if asked.distill else 0
    smaller = replace(goal, nbytes=goal.nbytes - spare)
    coded: Coded
    if asked.compensate:
        training = distill.training(windows, asked.distill, asked.seed) if asked.distill else windows
        coded = compensated(model, prepared, smaller, training, device=run.device, progress=run.progress)
    else:
        coded = solve(model, prepared, smaller, run.progress)
    if not asked.distill:
        return Distilled(coded, {}, {})
    return distilled.distilled(task, prepared, goal, coded=coded, windows=windows, run=run)
