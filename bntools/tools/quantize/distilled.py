"""Scale distillation of entropy-coded weights: trained factors become finer exponents of the rows and columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.architecture import linears as modules
from bntools.core.artifact import dtypes
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.progress import Progress
from bntools.core.training import distill
from bntools.core.training.distill import Student
from bntools.tools.quantize import entropy as method
from bntools.tools.quantize import levels
from bntools.tools.quantize.entropy import Goal, Pass, Prepared

_OCTAVES = (64, 32, 16)  # steps of the trained exponents in a factor of two; the first that fits the size
_SPARE = (
    1.75 / 8
)  # bytes a row and a column kept free; 24 steps take 1.2 bits, and more makes the octave coarser
_TABLES = 400  # bytes kept free for the longer tables of the sides


@dataclass
class Distilled:
    """What is written: levels with their exponents, streams, tables, trained gains by tensor name, and the report."""

    trial: Pass
    streams: dict[str, bytes]
    tables: bytes
    gains: dict[str, Tensor]
    report: dict[str, Any]


def reserve(model: Model, names: Iterable[str]) -> int:
    """Bytes to keep free for the exponents of the linears among `names`."""
    shapes = [model.entries[name].shape for name in names if name in model.linears]
    return _TABLES + int(_SPARE * sum(sum(shape) for shape in shapes))


def distilled(
    model: Model, found: Prepared, goal: Goal, coded: tuple[Pass, dict[str, bytes], bytes], windows: Tensor,
    steps: int, seed: int, device: str, progress: Progress,
) -> Distilled:  # fmt: skip
    """Train scales and norm gains against the original for at most `steps` steps; the start where nothing is better.

    goal: the size that may not be passed, with what was reserved. The whole model is in memory, in float32.
    """
    trial = coded[0]
    parts = distill.split(len(windows), steps, seed)
    built = model.build(torch.float32, device)
    windows = windows.to(device)
    wanted = [*parts.train, *parts.held_out]
    with progress("reading the original's answers", len(wanted) * windows.shape[1]) as step:
        known = distill.targets(built, windows, wanted, step)
    teacher = _place(built, model, found, trial)
    linears = [model.linears[name].module for name in found.names if name in model.linears]
    names = gains_of(built, model)
    student = Student(built, linears, list(names), windows, known, teacher)
    with progress("distilling", 2 * steps) as step:
        trained = distill.train(student, parts, steps, step)
    types = {gain: dtypes.torch_dtype(model.entries[name].dtype) for gain, name in names.items()}
    report = {"steps": steps, "steps_taken": trained.steps, "kl_start": six(trained.start)}
    for octave in _OCTAVES if trained.end < trained.start else ():
        state, rows, cols = distill.rounded(trained.state, octave, types)
        finer = _folded(model, found, trial, octave, rows, cols)
        streams, tables = method.streams(model, found, finer)
        if len(tables) + sum(map(len, streams.values())) > goal.nbytes:
            finer.spool.close()
            continue
        end = student.measure(state, parts.held_out)
        if not end < trained.start:
            break
        gains = {names[gain]: value.cpu() for gain, value in state.gains.items()}
        return Distilled(finer, streams, tables, gains, {**report, "kl_end": six(end), "octave": octave})
    return Distilled(*coded, {}, {**report, "kl_end": six(trained.start), "octave": levels.OCTAVE})


def six(value: float) -> float:
    return float(f"{value:.6g}")


def _place(built: Any, model: Model, found: Prepared, trial: Pass) -> distill.Logits:
    """Put the coded weights into the original; returns the original's head."""
    teacher = distill.logits_of(built)
    head = built.get_output_embeddings()
    coded_head = any(name not in model.linears for name in found.names)
    if coded_head:
        original = head.weight.detach().clone()
        bias = head.bias

        def linear(hidden: Tensor) -> Tensor:
            return torch.nn.functional.linear(hidden, original, bias)

        teacher = distill.logits_of(built, linear)
    tables = trial.counter.tables(levels.shrinks(found.trellis))
    for name in found.names:
        linear_ = model.linears.get(name)
        path = linear_.module if linear_ else name.removesuffix(".weight")
        coded = entropy.EntropyCoded(*trial.spool.get(name))  # type: ignore[arg-type]
        values = torch.from_numpy(entropy.values(coded, tables, levels.OCTAVE))
        weight = built.get_submodule(path).weight
        weight.data.copy_(values if linear_ and linear_.transposed else values.T)
    return teacher


def gains_of(built: Any, model: Model) -> dict[str, str]:
    """Gains of the norms: parameter name to the tensor of the checkpoint it is, where it is one."""
    rename = modules.renamer(modules.skeleton(model.config))
    tensors = {rename(name): name for name, entry in model.entries.items() if len(entry.shape) == 1}
    norms = [
        f"{path}.weight" for path, module in built.named_modules() if "norm" in type(module).__name__.lower()
    ]
    shapes = {name: tuple(parameter.shape) for name, parameter in built.named_parameters()}
    return {
        name: tensors[name] for name in norms
        if name in tensors and shapes.get(name) == tuple(model.entries[tensors[name]].shape)
    }  # fmt: skip


def _folded(
    model: Model, found: Prepared, trial: Pass, octave: int, rows: dict[str, Tensor], cols: dict[str, Tensor]
) -> Pass:
    """The same levels with the factors' exponents added to those of their scales."""
    result = replace(trial, counter=entropy.Counter(found.trellis), spool=method.Spool(), octave=octave)
    finer = octave // levels.OCTAVE
    for name in found.names:
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
