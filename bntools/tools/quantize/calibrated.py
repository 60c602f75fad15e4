"""GPTQ over a whole model: block by block, from the original's activations or the quantized prefix's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core import packed
from bntools.core.blocks import Blocks
from bntools.core.errors import BnError
from bntools.core.model import Model
from bntools.tools.quantize.choose import DIMS, best
from bntools.tools.quantize.gptq import DAMPING, Coded, gptq
from bntools.tools.quantize.pipeline import Choice, Item, Result, Step, quantize, spec_of
from bntools.tools.quantize.settings import Settings


def calibrated(
    model: Model,
    items: list[Item],
    choices: Mapping[str, Choice],
    settings: Settings,
    windows: Tensor,
    device: str,
    step: Step,
) -> Iterator[Result]:
    """GPTQ for every linear of the blocks, then what is left, rounded to nearest or kept, in checkpoint order.

    Without `settings.sequential` every block is fed what the original model feeds it, and the Hessians of a block
    take one pass. With it the prefix is the quantized one, inside a block as well: one pass for each input that
    linears share.
    """
    built = model.build(torch.float32, device)
    by_path = {item.linear.module: item for item in items if item.linear and item.grid}
    done: set[str] = set()
    blocks = Blocks(built, windows)
    for path, layer in blocks:
        inside = {
            name: by_path[f"{path}.{name}"]
            for name, module in layer.named_modules()
            if f"{path}.{name}" in by_path and _is_matrix(module)
        }
        for found in _passes(blocks, list(inside), settings.sequential, step):
            for name, hessian in found.items():
                item = inside[name]
                result, values = _one(model, item, choices.get(item.name), settings, hessian)
                done.add(item.name)
                if settings.sequential:
                    _place(layer.get_submodule(name), values, item)
                yield result
        if settings.sequential:
            blocks.advance(step)
    del built, blocks
    yield from quantize(model, [item for item in items if item.name not in done], choices, settings)


def _passes(blocks: Blocks, names: list[str], sequential: bool, step: Step) -> Iterator[dict[str, Tensor]]:
    """Hessians of the block's linears: all at once, or input by input in the order of execution."""
    if not sequential:
        yield blocks.gather(names, advance=True, step=step)
        return
    left = list(names)
    while left:
        found = blocks.gather(left, advance=False, step=step)
        if not found:
            return
        first = next(iter(found.values()))
        group = {name: hessian for name, hessian in found.items() if hessian is first}
        left = [name for name in left if name not in group]
        yield group


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2


def _place(module: nn.Module, values: Tensor, item: Item) -> None:
    assert item.linear is not None
    weight: Any = module.weight
    weight.data = (values.T if item.linear.transposed else values).to(weight).contiguous()


def _one(
    model: Model, item: Item, choice: Choice | None, settings: Settings, hessian: Tensor
) -> tuple[Result, Tensor]:
    assert item.grid is not None
    assert item.linear is not None
    w = model.tensor(item.name, torch.float32)
    w = w.T if item.linear.transposed else w
    try:
        coded, chosen, errors = _code(w, item, choice, settings, hessian.cpu())
    except BnError as error:
        raise BnError(f"{item.name}: {error.what}", error.hint, error.code) from None
    spec = spec_of(item, replace(item.grid, dim=chosen), model)
    tensors = packed.tensors(item.name, spec, [coded.packed])
    size = sum(tensor.nbytes for tensor in tensors.values())
    lost = float((coded.values - w).square().sum(dtype=torch.float64))
    total = float(w.square().sum(dtype=torch.float64))
    measured: dict[str, Any] = {
        "bits_per_weight": round(8 * size / w.numel(), 4),
        "weight_error": float(f"{(lost / max(total, 1e-300)) ** 0.5:.4g}"),
        "output_error": float(f"{coded.error:.4g}"),
        **errors,
    }
    if coded.damping != DAMPING:
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

    def run(dim: str) -> Coded:
        return gptq(w, hessian, replace(grid, dim=dim), settings.search, transposed, settings.rounds)

    if grid.dim != "ada":
        return run(grid.dim), grid.dim, {}
    if settings.choose == "final":
        both = {dim: run(dim) for dim in DIMS}
        errors = {dim: float(f"{coded.error:.4g}") for dim, coded in both.items()}
        chosen = best(errors)
        record: dict[str, Any] = {"criterion": "final", "errors": errors}
        if choice:
            record["errors_rtn"] = choice.errors
        return both[chosen], chosen, record
    assert choice is not None
    chosen = best(choice.errors)
    return run(chosen), chosen, {"criterion": choice.criterion, "errors": choice.errors}
