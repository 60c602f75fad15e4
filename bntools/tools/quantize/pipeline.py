"""From a model and settings to packed tensors, one at a time: plan, choose, round, pack."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bntools.core.architecture import linears
from bntools.core.architecture.linears import Linear
from bntools.core.artifact import dtypes
from bntools.core.blockwise.blocks import input_squares
from bntools.core.errors import BnError, bad_input
from bntools.core.model.model import Model
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.core.progress import Step, no_step
from bntools.kernels.grouped.operations import Packed, dequantize
from bntools.tools.quantize import coded_grids
from bntools.tools.quantize.balance import STEPS, balance
from bntools.tools.quantize.choose import CHOICE_TOKENS, Errors, best, iterate_weight_errors, module_errors
from bntools.tools.quantize.round_to_nearest import rounded
from bntools.tools.quantize.settings import Grid, Settings

Moments = Mapping[str, Tensor]
_LIBRARIES = 450_000_000  # resident bytes of torch and transformers, loaded
_IN_FLIGHT = 512 << 20  # bytes of tensors worked on at once
_SMALLEST = 8  # a matrix with fewer rows or columns is a gate, not worth a grid


@dataclass(frozen=True)
class Item:
    """One tensor of the checkpoint: its grid, or the reason why it is kept."""

    name: str
    linear: Linear | None
    grid: Grid | None
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """Errors of both dimensions of one tensor, and the criterion that gave them."""

    criterion: str
    errors: Errors


@dataclass
class Result:
    """One finished tensor: what goes into the artifact, and how it was made."""

    name: str
    tensors: dict[str, Tensor]
    spec: GroupSpec | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def plan(model: Model, settings: Settings) -> list[Item]:
    """What happens to each tensor, in checkpoint order."""
    return [_item(model, settings, name) for name in model.entries]


def _item(model: Model, settings: Settings, name: str) -> Item:
    entry = model.entries[name]
    linear = model.linears.get(name) or model.routers.get(name)
    if linear is None:
        kind = (
            "vector (norm, bias)" if len(entry.shape) < 2 else "not a linear weight (embedding, head, router)"
        )
        return Item(name, None, None, kind)
    reason = settings.wanted(name)
    if not reason and linear.router and not settings.include:
        reason = "a router: it chooses experts"
    if not reason and entry.dtype not in dtypes.FLOATS:
        reason = f"type {entry.dtype} is not a float type"
    if not reason and min(entry.shape[-2:]) < _SMALLEST:
        reason = f"fewer than {_SMALLEST} rows or columns"
    return Item(name, linear, None, reason) if reason else Item(name, linear, settings.grid_of(name))


def choose(
    model: Model, items: list[Item], settings: Settings, windows: Tensor | None, device: str, step: Step
) -> dict[str, Choice]:
    """Errors of both dimensions for every tensor whose dimension is to be chosen.

    Without calibration windows, and for experts whose linears are no modules of their own, the criterion is the
    weight's own error. It is also what stands here for the criterion `output`, where GPTQ has the moments for it and
    makes the choice itself.
    """
    work = {i.name: (i.linear, i.grid) for i in items if i.linear and i.grid and i.grid.dim == "ada"}
    found: dict[str, Choice] = {}
    moments: dict[str, Tensor] = {}
    if work and windows is not None and settings.criterion in ("module", "diag"):
        if settings.criterion == "module":
            built = model.build(torch.float32, device)
            own = {name: pair for name, pair in work.items() if _is_module(built, pair[0])}
            errors = module_errors(built, own, _spread(windows, CHOICE_TOKENS), step)
            found = {name: Choice("module", value) for name, value in errors.items()}
            del built
        else:
            chosen = [item for item in items if item.name in work]
            moments = dict(input_moments(model, chosen, windows, device, no_step))
    rest = ((name, model.tensor(name), *pair) for name, pair in work.items() if name not in found)
    for name, value in iterate_weight_errors(rest, moments):
        found[name] = Choice("diag" if name in moments else "weight", value)
        step(1)
    return found


def _spread(windows: Tensor, tokens: int) -> Tensor:
    """Windows of about so many tokens, evenly from all of them."""
    return windows[:: max(1, windows.numel() // tokens)]


def _is_module(built: torch.nn.Module, linear: Linear) -> bool:
    """Whether a tensor is the weight of a module of its own that takes one input."""
    try:
        weight = getattr(built.get_submodule(linear.module), "weight", None)
    except AttributeError:
        return False
    return isinstance(weight, Tensor) and weight.ndim == 2


def input_moments(model: Model, items: list[Item], windows: Tensor, device: str, step: Step) -> Moments:
    """E[x_j^2] of the inputs of each linear to be quantized, by tensor name; none for experts in a stack."""
    tree = linears.skeleton(model.config)
    paths = {i.name: i.linear.module for i in items if i.linear and i.grid and _is_module(tree, i.linear)}
    found = input_squares(model, set(paths.values()), windows, device, step)
    return {name: found[path] for name, path in paths.items() if path in found}


def quantize(
    model: Model,
    items: list[Item],
    choices: Mapping[str, Choice],
    settings: Settings,
    moments: Moments | None = None,
) -> Iterator[Result]:
    """Round and pack tensor by tensor, in checkpoint order; what is kept passes through as it is.

    moments: importance of the inputs, for weighted grids.

    One thread a tensor: the operations work on blocks too small to be worth sharing out. Tensors in flight are
    bounded by torch's number of threads and by `_IN_FLIGHT` bytes.
    """
    workers = torch.get_num_threads()
    pending: deque[tuple[Future[Result], int]] = deque()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="quantize")
    try:
        for item in items:
            pending.append(
                (
                    pool.submit(
                        _one,
                        model,
                        item,
                        choices.get(item.name),
                        settings.search,
                        (moments or {}).get(item.name),
                    ),
                    model.entries[item.name].nbytes,
                )
            )
            while len(pending) > workers or sum(size for _, size in pending) > _IN_FLIGHT:
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


def _one(model: Model, item: Item, choice: Choice | None, search: str, importance: Tensor | None) -> Result:
    if item.grid is None or item.linear is None:
        return Result(item.name, {item.name: model.tensor(item.name)}, reason=item.reason)
    try:
        dim = best(choice.errors) if choice else item.grid.dim
        return _quantize_one(model, item, replace(item.grid, dim=dim), choice, search, importance)
    except BnError as error:
        raise BnError(f"{item.name}: {error.what}", error.hint, error.code) from None


def _quantize_one(
    model: Model, item: Item, grid: Grid, choice: Choice | None, search: str, importance: Tensor | None
) -> Result:
    assert item.linear is not None
    spec = spec_of(item, grid, model)
    w = model.tensor(item.name)
    slices, inputs, lost, total = [], [], 0.0, 0.0
    for piece in w if w.ndim == 3 else w[None]:
        if spec.inputs:
            coded, stored, error, energy = _balanced(piece, grid, item.linear.transposed, search, importance)
            inputs.append(stored)
        else:
            flipped = (grid.dim == "ic") != item.linear.transposed
            coded, error, energy = _coded(piece, grid, flipped, search, importance)
        slices.append(coded)
        lost, total = lost + error, total + energy
    tensors = grouped.tensors(item.name, spec, slices)
    if inputs:
        tensors[f"{item.name}.inputs"] = torch.stack(inputs) if w.ndim == 3 else inputs[0]
    size = sum(tensor.nbytes for tensor in tensors.values())
    measured: dict[str, Any] = {
        "bits_per_weight": round(8 * size / w.numel(), 4),
        "weight_error": float(f"{(lost / max(total, 1e-300)) ** 0.5:.4g}"),
    }
    if choice:
        measured["criterion"] = choice.criterion
        measured["errors"] = choice.errors
    return Result(item.name, tensors, spec, measured)


def _coded(
    piece: Tensor, grid: Grid, flipped: bool, search: str, importance: Tensor | None
) -> tuple[Packed, float, float]:
    """A matrix to the nearest levels, with the squared norms of its change and of itself."""
    if grid.meta:
        return _on_coded_grids(piece, grid, flipped, importance)
    # A search blind to the inputs often does harm; per IC all weights of a group have the same input.
    search = "minmax" if importance is None else search
    weights = importance if grid.dim == "oc" else None
    return rounded(piece, grid.bits, grid.group, grid.symmetric, flipped, search, weights)


def _balanced(
    piece: Tensor, grid: Grid, transposed: bool, search: str, importance: Tensor | None
) -> tuple[Packed, Tensor, float, float]:
    """The same of W / c, c the factors of the inputs, whose bytes are the second result.

    Without a text, coded scales are searched as if an error of an input counted by 1 / c^2: large weights tend to
    stand where inputs are small. Grids of scales that are numbers then are those of the range.
    """
    w = (piece.T if transposed else piece).float()
    if not torch.isfinite(w).all():
        raise bad_input("weights are NaN or infinite", "the checkpoint is damaged; --exclude keeps a tensor")
    stored = balance(w)
    factors = grouped.factors(stored, STEPS)
    weights = torch.ones_like(factors) if importance is None else importance.float() * factors.square()
    search = "minmax" if importance is None else search
    found, _, _ = _coded(w / factors, grid, False, search, weights)
    lost = float((dequantize(found) * factors - w).square().sum(dtype=torch.float64))
    total = float(w.square().sum(dtype=torch.float64))
    return found._replace(transposed=transposed), stored, lost, total


def _on_coded_grids(
    piece: Tensor, grid: Grid, flipped: bool, importance: Tensor | None
) -> tuple[Packed, float, float]:
    """A matrix to the nearest levels of searched grids, with the squared norms of its change and of itself."""
    w = (piece.T if flipped else piece).to(torch.float32)
    if not torch.isfinite(w).all():
        raise bad_input("weights are NaN or infinite", "the checkpoint is damaged; --exclude keeps a tensor")
    weights = torch.ones(w.shape[1]) if importance is None else importance.float()
    coded, values = coded_grids.by_rounding(w, weights, grid)
    lost = float((values - w).square().sum(dtype=torch.float64))
    return coded._replace(transposed=flipped), lost, float(w.square().sum(dtype=torch.float64))


def spec_of(item: Item, grid: Grid, model: Model) -> GroupSpec:
    """How a tensor will be packed on a grid whose dimension is chosen."""
    assert item.linear is not None
    entry = model.entries[item.name]
    dim = "oc" if grid.dim == "ada" else grid.dim
    return GroupSpec(
        grid.bits, grid.group, dim, grid.symmetric, entry.shape, entry.dtype, item.linear.transposed,
        grid.meta, grid.trellis, STEPS if grid.balance and dim == "oc" else 0,
    )  # fmt: skip


def summarize(results: list[Result], model: Model) -> dict[str, Any]:
    """The report of a run: counts, dimensions and bits per weight with all metadata counted."""
    done = [result for result in results if result.spec is not None]
    bits = sum(result.measured["bits_per_weight"] * model.entries[result.name].numel for result in done)
    weights = sum(model.entries[result.name].numel for result in done)
    kept = sum(model.entries[result.name].nbytes for result in results if result.spec is None)
    everything = sum(entry.numel for entry in model.entries.values())
    skipped = {
        result.name: result.reason
        for result in results
        if result.spec is None and not result.reason.startswith("vector")
    }
    return {
        "kind": "quantize",
        "tensors": len(done),
        "weights": weights,
        "dims": dict(sorted(Counter(result.spec.dim for result in done if result.spec).items())),
        "bits_per_weight": {
            "linear": round(bits / max(weights, 1), 4),
            "model": round((bits + 8 * kept) / max(everything, 1), 4),
        },
        "skipped": skipped if len(skipped) <= 40 else dict(Counter(skipped.values())),
    }


def estimate(model: Model, items: list[Item]) -> dict[str, Any]:
    """What a run would read, write and hold in memory, without doing it."""
    chosen = [(item, model.entries[item.name]) for item in items if item.grid is not None]
    size = sum(spec_of(item, item.grid, model).nbytes for item, _ in chosen if item.grid is not None)
    kept = sum(model.entries[item.name].nbytes for item in items if item.grid is None)
    weights = sum(entry.numel for _, entry in chosen)
    largest = max(
        (entry.numel // (entry.shape[0] if len(entry.shape) == 3 else 1) for _, entry in chosen), default=0
    )
    adaptive = any(item.grid is not None and item.grid.dim == "ada" for item, _ in chosen)
    whole = 4 * sum(entry.numel for entry in model.entries.values()) if adaptive else 0
    return {
        "kind": "plan",
        "tensors": len(chosen),
        "reads_bytes": model.store.nbytes(),
        "writes_bytes": size + kept,
        "bits_per_weight": {"linear": round(8 * size / max(weights, 1), 4)},
        "memory_bytes": _LIBRARIES + max(min(_IN_FLIGHT, model.store.nbytes()) + 4 * largest, whole),
    }
