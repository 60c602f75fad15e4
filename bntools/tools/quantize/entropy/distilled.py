"""Scale distillation of entropy-coded weights: trained factors become finer exponents of the rows and columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.artifact import dtypes
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.report.values import six_digits
from bntools.core.training import distill
from bntools.core.training.distill import Student
from bntools.tools.quantize.entropy import levels
from bntools.tools.quantize.entropy import whole_model as method
from bntools.tools.quantize.entropy.whole_model import Coded, Goal, Pass, Prepared
from bntools.tools.quantize.plan import Task, gains_of
from bntools.tools.quantize.settings import RunOptions

_OCTAVES = (64, 32, 16)  # steps of the trained exponents in a factor of two; the first that fits the size
_SPARE = (
    1.75 / 8
)  # bytes a row and a column kept free; 24 steps take 1.2 bits, and more makes the octave coarser
_TABLES = 400  # bytes kept free for the longer tables of the sides


@dataclass
class Distilled:
    """What is written: levels with streams and tables, trained gains by tensor name, and the report."""

    coded: Coded
    gains: dict[str, Tensor]
    report: dict[str, Any]


def reserve(model: Model, names: Iterable[str]) -> int:
    """Bytes to keep free for the exponents of the linears among `names`."""
    shapes = [model.entries[name].shape for name in names if name in model.linears]
    return _TABLES + int(_SPARE * sum(sum(shape) for shape in shapes))


def distilled(
    task: Task, prepared: Prepared, goal: Goal, *, coded: Coded, windows: Tensor, run: RunOptions
) -> Distilled:
    """Train scales and norm gains against the original for at most `distill` steps; the start where nothing is better.

    goal: the size that may not be passed, with what was reserved. The whole model is in memory, in float32.
    """
    model, steps, trial = task.model, task.entropy.distill, coded.trial
    parts = distill.split(len(windows), steps, task.entropy.seed)
    network = model.build(torch.float32, run.device)
    windows = windows.to(run.device)
    wanted = [*parts.train, *parts.held_out]
    with run.progress("reading the original's answers", len(wanted) * windows.shape[1]) as step:
        answers = distill.targets(network, windows, wanted, step)
    teacher = _place(network, model, prepared, trial)
    linears = [model.linears[name].module for name in prepared.names if name in model.linears]
    names = gains_of(network, model)
    student = Student(network, linears, list(names), windows, answers, teacher)
    with run.progress("distilling", 2 * steps) as step:
        trained = distill.train(student, parts, steps, step)
    types = {gain: dtypes.torch_dtype(model.entries[name].dtype) for gain, name in names.items()}
    report = {"steps": steps, "steps_taken": trained.steps, "kl_start": six_digits(trained.start)}
    for octave in _OCTAVES if trained.end < trained.start else ():
        state, rows, cols = distill.rounded(trained.state, octave, types)
        finer = method.coded(model, prepared, _folded(model, prepared, trial, octave, rows, cols))
        if finer.nbytes > goal.nbytes:
            finer.trial.spool.close()
            continue
        end = student.measure(state, parts.held_out)
        if not end < trained.start:
            break
        gains = {names[gain]: value.cpu() for gain, value in state.gains.items()}
        return Distilled(finer, gains, {**report, "kl_end": six_digits(end), "octave": octave})
    return Distilled(coded, {}, {**report, "kl_end": six_digits(trained.start), "octave": levels.OCTAVE})


def _place(built: Any, model: Model, prepared: Prepared, trial: Pass) -> distill.Logits:
    """Put the coded weights into the original; returns the original's head."""
    teacher = distill.logits_of(built)
    head = built.get_output_embeddings()
    coded_head = any(name not in model.linears for name in prepared.names)
    if coded_head:
        original = head.weight.detach().clone()
        bias = head.bias

        def linear(hidden: Tensor) -> Tensor:
            return torch.nn.functional.linear(hidden, original, bias)

        teacher = distill.logits_of(built, linear)
    tables = trial.counter.tables(levels.shrinks(prepared.trellis))
    for name in prepared.names:
        linear_ = model.linears.get(name)
        path = linear_.module if linear_ else name.removesuffix(".weight")
        coded = entropy.EntropyCoded(*trial.spool.get(name))  # type: ignore[arg-type]
        values = torch.from_numpy(entropy.values(coded, tables, levels.OCTAVE))
        weight = built.get_submodule(path).weight
        weight.data.copy_(values if linear_ and linear_.transposed else values.T)
    return teacher


def _folded(
    model: Model,
    prepared: Prepared,
    trial: Pass,
    octave: int,
    rows: dict[str, Tensor],
    cols: dict[str, Tensor],
) -> Pass:
    """The same levels with the factors' exponents added to those of their scales."""
    result = replace(trial, counter=entropy.Counter(prepared.trellis), spool=method.Spool(), octave=octave)
    finer = octave // levels.OCTAVE
    for name in prepared.names:
        coded = entropy.EntropyCoded(*trial.spool.get(name))  # type: ignore[arg-type]
        linear = model.linears.get(name)
        if linear is not None:
            coded.row_scale = _added(coded.row_scale, finer, rows[linear.module])
            coded.col_scale = _added(coded.col_scale, finer, cols[linear.module])
        result.counter.add(coded)
        result.spool.put(name, [getattr(coded, part) for part in ("levels", *entropy.SIDES)])
    return result


def _added(exponents: entropy.Ints, finer: int, more: Tensor) -> entropy.Ints:
    return (exponents.astype(np.int32) * finer + more.numpy()).astype(np.int16)
