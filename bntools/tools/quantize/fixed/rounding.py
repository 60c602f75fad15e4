"""Rounding over a whole model, tensor by tensor: the dimension of each, its codes, its packed form."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bntools.core.architecture import linears
from bntools.core.architecture.linears import Linear
from bntools.core.blockwise.blocks import input_squares
from bntools.core.errors import BnError, bad_input
from bntools.core.packing import grouped
from bntools.core.progress import Step, no_step
from bntools.core.report.values import four_digits
from bntools.kernels.grouped.operations import Packed, dequantize
from bntools.tools.quantize.fixed import coded_grids
from bntools.tools.quantize.fixed.balance import balance
from bntools.tools.quantize.fixed.dimensions import CHOICE_TOKENS, best, iterate_weight_errors, module_errors
from bntools.tools.quantize.fixed.round_to_nearest import rounded
from bntools.tools.quantize.plan import Choice, Importance, Item, Result, Task, spec_of
from bntools.tools.quantize.settings import BALANCE_STEPS, Grid

_IN_FLIGHT = 512 << 20  # bytes of tensors worked on at once


def choose(
    task: Task, windows: Tensor | None, *, device: str = "cpu", step: Step = no_step
) -> dict[str, Choice]:
    """Errors of both dimensions for every tensor whose dimension is to be chosen.

    Without calibration windows, and for experts whose linears are no modules of their own, the criterion is the
    weight's own error. It is also what stands here for the criterion `output`, where GPTQ has the moments for it and
    makes the choice itself.
    """
    model, criterion = task.model, task.settings.criterion
    adaptive = {i.name: (i.linear, i.grid) for i in task.items if i.linear and i.grid and i.grid.dim == "ada"}
    choices: dict[str, Choice] = {}
    moments: Importance = {}
    if adaptive and windows is not None and criterion == "module":
        network = model.build(torch.float32, device)
        own = {name: pair for name, pair in adaptive.items() if _is_module(network, pair[0])}
        errors = module_errors(network, own, _spread(windows, CHOICE_TOKENS), step)
        choices = {name: Choice("module", value) for name, value in errors.items()}
        del network
    elif adaptive and windows is not None and criterion == "diag":
        moments = input_moments(
            task.of([item for item in task.items if item.name in adaptive]), windows, device
        )
    rest = ((name, model.tensor(name), *pair) for name, pair in adaptive.items() if name not in choices)
    for name, value in iterate_weight_errors(rest, moments):
        choices[name] = Choice("diag" if name in moments else "weight", value)
        step(1)
    return choices


def _spread(windows: Tensor, tokens: int) -> Tensor:
    """Windows of about so many tokens, evenly from all of them."""
    return windows[:: max(1, windows.numel() // tokens)]


def _is_module(built: torch.nn.Module, linear: Linear) -> bool:
    """Whether a tensor is the weight of a module of its own that takes one input."""
    try:
        weight = getattr(built.get_submodule(linear.module), "weight", None)
    except AttributeError:
        return False
    return weight is not None and isinstance(weight, Tensor) and weight.ndim == 2


def input_moments(task: Task, windows: Tensor, device: str, step: Step = no_step) -> Importance:
    """E[x_j^2] of the inputs of each linear to be quantized, by tensor name; none for experts in a stack."""
    tree = linears.skeleton(task.model.config)
    paths = {i.name: i.linear.module for i in task.chosen if i.linear and _is_module(tree, i.linear)}
    squares = input_squares(task.model, set(paths.values()), windows, device, step)
    return {name: squares[path] for name, path in paths.items() if path in squares}


def quantize(
    task: Task, choices: Mapping[str, Choice], importance: Importance | None = None
) -> Iterator[Result]:
    """Round and pack tensor by tensor, in checkpoint order; what is kept passes through as it is.

    importance: E[x_j^2] of the inputs, for weighted grids.

    One thread a tensor: the operations work on blocks too small to be worth sharing out. Tensors in flight are
    bounded by torch's number of threads and by `_IN_FLIGHT` bytes.
    """
    workers = torch.get_num_threads()
    pending: deque[tuple[Future[Result], int]] = deque()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="quantize")
    try:
        for item in task.items:
            weights = (importance or {}).get(item.name)
            future = pool.submit(_quantize_item, task, item, choices.get(item.name), weights)
            pending.append((future, task.model.entries[item.name].nbytes))
            while len(pending) > workers or sum(size for _, size in pending) > _IN_FLIGHT:
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


class _Rounding(NamedTuple):
    """How one tensor is rounded."""

    grid: Grid
    search: str
    importance: Tensor | None


def _quantize_item(task: Task, item: Item, choice: Choice | None, importance: Tensor | None) -> Result:
    if item.grid is None or item.linear is None:
        return Result(item.name, {item.name: task.model.tensor(item.name)}, reason=item.reason)
    try:
        dim = best(choice.errors) if choice else item.grid.dim
        rounding = _Rounding(replace(item.grid, dim=dim), task.settings.search, importance)
        return _quantize_tensor(task, item, choice, rounding)
    except BnError as error:
        raise BnError(f"{item.name}: {error.what}", error.hint, error.code) from None


def _quantize_tensor(task: Task, item: Item, choice: Choice | None, rounding: _Rounding) -> Result:
    assert item.linear is not None
    spec = spec_of(item, rounding.grid, task.model)
    w = task.model.tensor(item.name)
    slices, inputs, lost, total = [], [], 0.0, 0.0
    for piece in w if w.ndim == 3 else w[None]:
        if spec.inputs:
            coded, stored, error, energy = _balanced(piece, item.linear.transposed, rounding)
            inputs.append(stored)
        else:
            flipped = (rounding.grid.dim == "ic") != item.linear.transposed
            coded, error, energy = _coded(piece, flipped, rounding)
        slices.append(coded)
        lost, total = lost + error, total + energy
    tensors = grouped.tensors(item.name, spec, slices)
    if inputs:
        tensors[f"{item.name}.inputs"] = torch.stack(inputs) if w.ndim == 3 else inputs[0]
    size = sum(tensor.nbytes for tensor in tensors.values())
    measured: dict[str, Any] = {
        "bits_per_weight": round(8 * size / w.numel(), 4),
        "weight_error": four_digits((lost / max(total, 1e-300)) ** 0.5),
    }
    if choice:
        measured["criterion"] = choice.criterion
        measured["errors"] = choice.errors
    return Result(item.name, tensors, spec, measured)


def _coded(piece: Tensor, flipped: bool, rounding: _Rounding) -> tuple[Packed, float, float]:
    """A matrix to the nearest levels, with the squared norms of its change and of itself."""
    grid, search, importance = rounding
    if grid.meta:
        return _on_coded_grids(piece, flipped, grid, importance)
    # A search blind to the inputs often does harm; per IC all weights of a group have the same input.
    search = "minmax" if importance is None else search
    weights = importance if grid.dim == "oc" else None
    return rounded(piece, grid, flipped=flipped, search=search, importance=weights)


def _balanced(piece: Tensor, transposed: bool, rounding: _Rounding) -> tuple[Packed, Tensor, float, float]:
    """The same of W / c, c the factors of the inputs, whose bytes are the second result.

    Without a text, coded scales are searched as if an error of an input counted by 1 / c^2: large weights tend to
    stand where inputs are small. Grids of scales that are numbers then are those of the range.
    """
    w, importance = (piece.T if transposed else piece).float(), rounding.importance
    if not torch.isfinite(w).all():
        raise bad_input("weights are NaN or infinite", "the checkpoint is damaged; --exclude keeps a tensor")
    stored = balance(w)
    factors = grouped.factors(stored, BALANCE_STEPS)
    weights = torch.ones_like(factors) if importance is None else importance.float() * factors.square()
    search = "minmax" if importance is None else rounding.search
    coded, _, _ = _coded(w / factors, False, _Rounding(rounding.grid, search, weights))
    lost = float((dequantize(coded) * factors - w).square().sum(dtype=torch.float64))
    total = float(w.square().sum(dtype=torch.float64))
    return coded._replace(transposed=transposed), stored, lost, total


def _on_coded_grids(
    piece: Tensor, flipped: bool, grid: Grid, importance: Tensor | None
) -> tuple[Packed, float, float]:
    """A matrix to the nearest levels of searched grids, with the squared norms of its change and of itself."""
    w = (piece.T if flipped else piece).to(torch.float32)
    if not torch.isfinite(w).all():
        raise bad_input("weights are NaN or infinite", "the checkpoint is damaged; --exclude keeps a tensor")
    weights = torch.ones(w.shape[1]) if importance is None else importance.float()
    coded, values = coded_grids.by_rounding(w, weights, grid)
    lost = float((values - w).square().sum(dtype=torch.float64))
    return coded._replace(transposed=flipped), lost, float(w.square().sum(dtype=torch.float64))
