"""Scale distillation of fixed codes: trained factors of inputs and outputs become a byte each, codes stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bntools.core.artifact import dtypes
from bntools.core.errors import usage
from bntools.core.model.model import Model
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.core.progress import Progress, no_progress
from bntools.core.report.values import six_digits
from bntools.core.training import distill
from bntools.core.training.distill import State, Student
from bntools.tools.quantize.plan import Result, Task, gains_of

_OCTAVES = (64, 32, 16)  # steps of a factor in an octave; the first that has all factors of a model in reach
_RATE = 3e-3  # better than 1e-3 in 16 to 64 steps


@dataclass(frozen=True)
class Pair:
    """Factors [in] and [out] of one weight, its own and the trained ones in one."""

    inputs: Tensor
    outputs: Tensor


def reserve(model: Model, names: Iterable[str]) -> int:
    """Bytes that the factors of some weights take."""
    return sum(sum(model.entries[name].shape) for name in names if len(model.entries[name].shape) == 2)


def factored(
    task: Task,
    results: list[Result],
    windows: Tensor,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> tuple[list[Result], dict[str, Any]]:
    """The results with factors and norm gains trained against the original for at most `settings.distill` steps; as
    they are where nothing is better on held-out text. Second: the report.

    The whole model is in memory, in float32. Stacks of experts have no factors.
    """
    model, steps, seed = task.model, task.settings.distill, task.settings.seed
    parts = distill.split(len(windows), steps, seed)
    built = model.build(torch.float32, device)
    if built.get_output_embeddings() is None:
        raise usage("--distill needs a model with an output head", "drop --distill")
    windows = windows.to(device)
    wanted = [*parts.train, *parts.held_out]
    with progress("reading the original's answers", len(wanted) * windows.shape[1]) as step:
        known = distill.targets(built, windows, wanted, step)
    paths = _place(built, model, results)
    gains = gains_of(built, model)
    student = Student(built, list(paths), list(gains), windows, known, distill.logits_of(built))
    with progress("distilling", 2 * steps) as step:
        trained = distill.train(student, parts, steps, step, _RATE)
    report = {"steps": steps, "steps_taken": trained.steps, "kl_start": six_digits(trained.start)}
    if trained.end < trained.start:
        types = {gain: dtypes.torch_dtype(model.entries[name].dtype) for gain, name in gains.items()}
        octave, pairs = _pairs(paths, trained.state)
        state = _as_stored(paths, pairs, trained.state, types, octave)
        end = student.measure(state, parts.held_out)
        if end < trained.start:
            stored = {gains[name]: gain.to(types[name]).cpu() for name, gain in state.gains.items()}
            done = [_with(result, pairs, paths, stored, octave) for result in results]
            return done, {**report, "kl_end": six_digits(end), "octave": octave}
    return results, {**report, "kl_end": six_digits(trained.start), "octave": 0}


def _place(built: Any, model: Model, results: list[Result]) -> dict[str, Result]:
    """Put the coded weights into the original; the results by module path of those that may get factors."""
    by_path = {}
    for result in results:
        if not isinstance(result.spec, GroupSpec):
            continue
        linear = model.linears[result.name]
        if len(result.spec.shape) == 2:
            by_path[linear.module] = result
        values = grouped.dense(result.name, result.spec, result.tensors.__getitem__, torch.float32)
        _weight(built, linear.module, result.name).copy_(values)
    return by_path


def _weight(built: Any, path: str, name: str) -> Tensor:
    try:
        return built.get_submodule(path).weight.data
    except AttributeError:
        raise usage(f"--distill cannot train {name}, which is a stack of experts", "drop --distill") from None


def _own(result: Result, part: str) -> Tensor | None:
    """The factors that a weight has already."""
    assert isinstance(result.spec, GroupSpec)
    steps = getattr(result.spec, part)
    return grouped.factors(result.tensors[f"{result.name}.{part}"], steps) if steps else None


def _pairs(paths: dict[str, Result], state: State) -> tuple[int, dict[str, Pair]]:
    """Trained factors times the weights' own, and the finest steps that reach all of them."""
    pairs = {}
    for path, result in paths.items():
        cols, rows = state.cols[path].cpu().clamp_min(1e-3), state.rows[path].cpu().clamp_min(1e-3)
        own = _own(result, "inputs"), _own(result, "outputs")
        pairs[path] = Pair(
            cols if own[0] is None else cols * own[0], rows if own[1] is None else rows * own[1]
        )
    logs = torch.cat(
        [values.log2().abs() for pair in pairs.values() for values in (pair.inputs, pair.outputs)]
    )
    most = float(logs.max())
    octave = next((steps for steps in _OCTAVES if most * steps < 127), _OCTAVES[-1])
    return octave, pairs


def _as_stored(
    paths: dict[str, Result], pairs: dict[str, Pair], state: State, types: dict[str, torch.dtype], octave: int
) -> State:
    """The trained state as it will be read back, relative to the weights in place."""

    def relative(path: str, part: str, values: Tensor) -> Tensor:
        stored = grouped.factors(grouped.exponents(values, octave), octave)
        own = _own(paths[path], part)
        return (stored if own is None else stored / own).to(state.rows[path].device)

    rows = {path: relative(path, "outputs", pair.outputs) for path, pair in pairs.items()}
    cols = {path: relative(path, "inputs", pair.inputs) for path, pair in pairs.items()}
    return State(rows, cols, {name: gain.to(types[name]).float() for name, gain in state.gains.items()})


def _with(
    result: Result, pairs: dict[str, Pair], paths: dict[str, Result], gains: dict[str, Tensor], octave: int
) -> Result:
    """A result with its trained factors, or a norm's trained gains."""
    if result.spec is None:
        if result.name not in gains:
            return result
        return replace(result, tensors={result.name: gains[result.name]})
    path = next((path for path, one in paths.items() if one.name == result.name), None)
    if path is None or not isinstance(result.spec, GroupSpec):
        return result
    spec = replace(result.spec, inputs=octave, outputs=octave)
    tensors = {
        **result.tensors,
        f"{result.name}.inputs": grouped.exponents(pairs[path].inputs, octave),
        f"{result.name}.outputs": grouped.exponents(pairs[path].outputs, octave),
    }
    size = sum(tensor.nbytes for tensor in tensors.values())
    bits = round(8 * size / (spec.shape[0] * spec.shape[1]), 4)
    return replace(result, spec=spec, tensors=tensors, measured={**result.measured, "bits_per_weight": bits})
