"""GPTQ over a whole model: block by block, from the original's activations or the quantized prefix's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.blockwise.blocks import Blocks
from bntools.core.errors import BnError
from bntools.core.importance.metric import INPUT_DAMPING
from bntools.core.packing import grouped
from bntools.core.progress import Step, no_step
from bntools.core.report.values import four_digits
from bntools.core.system.threads import in_order
from bntools.core.work.folder import Work
from bntools.core.work.states import States
from bntools.tools.quantize import units
from bntools.tools.quantize.fixed.dimensions import DIMS, best, output_errors
from bntools.tools.quantize.fixed.gptq import DAMPING, IN_FLIGHT, Coded, How, coding_bytes, gptq
from bntools.tools.quantize.fixed.rounding import quantize
from bntools.tools.quantize.plan import Choice, Item, Result, Task, spec_of
from bntools.tools.quantize.settings import Settings

_UNIT, _HIDDEN = "block {}".format, "inputs of block {}".format  # units of a --work folder


def calibrated(
    task: Task, choices: Mapping[str, Choice], windows: Tensor, *, device: str = "cpu", step: Step = no_step,
    work: Work | None = None,
) -> Iterator[Result]:  # fmt: skip
    """GPTQ for every linear of the blocks, then what is left, rounded to nearest or kept, in checkpoint order.

    One block at a time is in memory; while its linears are coded, only their Hessians are.
    Without `settings.sequential` every block is fed what the original model feeds it, and the Hessians of a block
    take one pass. With it the prefix is the quantized one, inside a block as well: one pass for each input that
    linears share.
    work: finished blocks are kept there with the inputs of the next one, and taken from there.
    """
    by_path = {item.linear.module: item for item in task.chosen if item.linear}
    done: set[str] = set()
    finished, hidden = _resume(work)
    for index in range(finished):
        for result in units.load(work, _UNIT(index)) if work else ():
            done.add(result.name)
            yield result
    blocks = Blocks(task.model, windows, device=device, start=finished, hidden=hidden)
    last = max((at for at in map(blocks.index_of, by_path) if at is not None), default=-1)
    for index, (path, layer) in enumerate(islice(blocks, max(last + 1 - finished, 0)), finished):
        inside = {
            name: by_path[f"{path}.{name}"]
            for name, module in layer.named_modules()
            if f"{path}.{name}" in by_path and _is_matrix(module)
        }
        results = []
        for result in _block(task, blocks, layer, inside, choices, step):
            done.add(result.name)
            results.append(replace(result, tensors=dict(result.tensors)) if work else result)
            yield result
        if work:
            _put_away(work, index, results, blocks)
    outside = [item for item in task.items if item.name not in done]
    if work:
        yield from units.resumed(work, outside, lambda rest: quantize(task.of(rest), choices))
    else:
        yield from quantize(task.of(outside), choices)


def _resume(work: Work | None) -> tuple[int, States | None]:
    """How many blocks are finished, and the inputs of the next one."""
    finished = 0
    while work and work.has(_UNIT(finished)):
        finished += 1
    if not work or not finished:
        return 0, None
    if not work.has(_HIDDEN(finished)):
        return 0, None  # somebody removed them: the same bytes come out of a start from the beginning
    return finished, States.load(work, _HIDDEN(finished))


def _put_away(work: Work, index: int, results: list[Result], blocks: Blocks) -> None:
    blocks.hidden.save(work, _HIDDEN(index + 1))
    units.save(work, _UNIT(index), results)
    work.drop(_HIDDEN(index))


def _block(
    task: Task,
    blocks: Blocks,
    layer: nn.Module,
    inside: dict[str, Item],
    choices: Mapping[str, Choice],
    step: Step,
) -> Iterator[Result]:
    """The linears `inside` the block at hand, whose outputs then are the next one's inputs."""
    sequential = task.settings.sequential
    for hessians in _passes(blocks, list(inside), sequential, step):
        jobs = [_Job(inside[name], choices.get(inside[name].name), h) for name, h in hessians.items()]
        names = list(hessians)
        hessians.clear()
        if not sequential:
            blocks.release()
        for name, (result, values) in zip(names, _code_all(task, jobs), strict=True):
            if sequential:
                _place(layer.get_submodule(name), values, inside[name])
            yield result
    if sequential:
        blocks.advance(step)


class _Job(NamedTuple):
    """One linear to be coded."""

    item: Item
    choice: Choice | None
    hessian: Tensor


def _code_all(task: Task, jobs: list[_Job]) -> Iterator[tuple[Result, Tensor]]:
    """The linears of a block coded one a thread, in their order, as many at once as `IN_FLIGHT` bytes allow."""

    def size(job: _Job) -> int:
        return coding_bytes(task.model.entries[job.item.name].numel, job.hessian.shape[0])

    return in_order(lambda job: coded_linear(task, job.item, job.choice, job.hessian), jobs, size, IN_FLIGHT)


def _passes(blocks: Blocks, names: list[str], sequential: bool, step: Step) -> Iterator[dict[str, Tensor]]:
    """Hessians of the block's linears: all at once, or input by input in the order of execution."""
    if not sequential:
        yield blocks.gather(names, advance=True, step=step)
        return
    left = list(names)
    while left:
        hessians = blocks.gather(left, advance=False, step=step)
        if not hessians:
            return
        first = next(iter(hessians.values()))
        group = {name: hessian for name, hessian in hessians.items() if hessian is first}
        left = [name for name in left if name not in group]
        yield group


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and isinstance(weight, Tensor) and weight.ndim == 2


def _place(module: nn.Module, values: Tensor, item: Item) -> None:
    assert item.linear is not None
    weight: Any = module.weight
    weight.data = (values.T if item.linear.transposed else values).to(weight).contiguous()


def coded_linear(
    task: Task, item: Item, choice: Choice | None, hessian: Tensor, target: Tensor | None = None
) -> tuple[Result, Tensor]:
    """One linear coded by GPTQ with the second moments of its inputs, and its dense values [out, in].

    target: [out, in] to be coded in place of the weight, from which `weight_error` is measured all the same.
    """
    assert item.grid is not None
    assert item.linear is not None
    settings = task.settings
    w = task.model.tensor(item.name, torch.float32)
    w = w.T if item.linear.transposed else w
    try:
        coded, chosen, errors = _code(w if target is None else target, item, choice, settings, hessian.cpu())
    except BnError as error:
        raise BnError(f"{item.name}: {error.what}", error.hint, error.code) from None
    spec = spec_of(item, replace(item.grid, dim=chosen), task.model)
    tensors = grouped.tensors(item.name, spec, [coded.packed])
    size = sum(tensor.nbytes for tensor in tensors.values())
    lost = float((coded.values - w).square().sum(dtype=torch.float64))
    total = float(w.square().sum(dtype=torch.float64))
    measured: dict[str, Any] = {
        "bits_per_weight": round(8 * size / w.numel(), 4),
        "weight_error": four_digits((lost / max(total, 1e-300)) ** 0.5),
        "output_error": four_digits(coded.error),
        **errors,
    }
    if coded.damping != _damping(settings):
        measured["damping"] = coded.damping
    if coded.dead:
        measured["dead_inputs"] = coded.dead
    return Result(item.name, tensors, spec, measured), coded.values


def _code(
    w: Tensor, item: Item, choice: Choice | None, settings: Settings, hessian: Tensor
) -> tuple[Coded, str, dict[str, Any]]:
    """The coded matrix, its dimension, and the errors that decided it."""
    assert item.grid is not None
    assert item.linear is not None
    grid, transposed = item.grid, item.linear.transposed
    how = How(settings.search, settings.rounds, _damping(settings))

    def run(dim: str) -> Coded:
        return gptq(w, hessian, replace(grid, dim=dim), how, stored_transposed=transposed)

    if grid.dim != "ada":
        return run(grid.dim), grid.dim, {}
    if settings.choose == "final":
        both = {dim: run(dim) for dim in DIMS}
        errors = {dim: four_digits(coded.error) for dim, coded in both.items()}
        chosen = best(errors)
        record: dict[str, Any] = {"criterion": "final", "errors": errors}
        if choice:
            record["errors_rtn"] = choice.errors
        return both[chosen], chosen, record
    if settings.criterion == "output":
        choice = Choice("output", output_errors(w, grid, hessian))
    assert choice is not None
    chosen = best(choice.errors)
    return run(chosen), chosen, {"criterion": choice.criterion, "errors": choice.errors}


def _damping(settings: Settings) -> float:
    return INPUT_DAMPING if settings.fisher else DAMPING
