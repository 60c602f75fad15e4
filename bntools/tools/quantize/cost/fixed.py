"""What fixed codes will take: bytes, memory and time of the method, the sweep and the sharing out of bits."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from bntools.core.blockwise import sampled_text
from bntools.core.model.model import Model
from bntools.tools.quantize.cost import passes as pass_cost
from bntools.tools.quantize.cost import probe as cost
from bntools.tools.quantize.cost.passes import Rates, Text
from bntools.tools.quantize.fixed import allocate
from bntools.tools.quantize.fixed.gptq import coding_bytes
from bntools.tools.quantize.plan import Item, Task


def plan(task: Task, windows: Tensor | None) -> dict[str, Any]:
    """The keys of a plan that differ from those of rounding to the grid asked for; windows: None without a text."""
    model, items, settings = task.model, task.items, task.settings
    sizes = _sizes(task) if settings.budget else {}
    swept = windows is not None and settings.sweeps
    rates = Rates.measured() if swept or settings.method == "gptq" else Rates(0.0, 0.0, 0.0)
    text = Text(0, 0) if windows is None else Text(len(windows), windows.shape[1])
    seconds = pass_cost.sweep_seconds(model, items, text, False, rates) if swept else 0.0
    if settings.method == "gptq" and swept:
        seconds += cost.coding_seconds(model, items, settings, rates.product)
    elif settings.method == "gptq":
        seconds += cost.calibrated_seconds(model, items, settings, text.tokens, text.window)
    else:
        seconds += cost.rounding_seconds(model, items, settings)
    if settings.compensate:
        seconds += pass_cost.compensated_seconds(model, items, text, rates)
    if settings.budget:
        seconds += _allocating(task)
    memory = 0
    if settings.method == "gptq":
        memory = cost.calibrated_bytes(model, items, text.tokens, text.window)
    if swept:
        memory = max(memory, cost.LIBRARIES + pass_cost.sweep_bytes(model, items, text, False, 0))
    if settings.compensate:
        largest = max((model.entries[item.name] for item in task.chosen), key=lambda entry: entry.numel)
        coding = coding_bytes(largest.numel, max(largest.shape))
        peak = pass_cost.compensated_bytes(model, items, text, coding)
        memory = max(memory, cost.LIBRARIES + peak)
    return {**sizes, **({"memory_bytes": memory} if memory else {}), "seconds": seconds}


def making_bytes(model: Model) -> int:
    """Peak memory of `core.made`: embedding and output head in float32, and what each thread draws tokens from."""
    outside = sum(entry.numel for name, entry in model.entries.items() if _is_matrix(model, name))
    return cost.LIBRARIES + 4 * outside + 7 * sampled_text.LOGITS_BYTES * torch.get_num_threads()


def _is_matrix(model: Model, name: str) -> bool:
    return name not in model.linears and len(model.entries[name].shape) == 2


def making_seconds(model: Model, tokens: int) -> float:
    """Time of `core.made`: the passes of pieces that grow, the output head once, the blocks read anew each round."""
    rounds = sampled_text.PIECE - 1
    inside = [model.entries[name] for name in model.linears]
    vocabulary, width = int(model.config["vocab_size"]), int(model.config.get("hidden_size") or 0)
    products = rounds / 2 * sum(entry.numel for entry in inside) + vocabulary * width
    began = time.perf_counter()
    read = sum(model.tensor(name, torch.float32).numel() for name in list(model.linears)[:4])
    reading = (time.perf_counter() - began) / max(read, 1) * sum(entry.numel for entry in inside)
    return 2 * tokens * products / cost.product_rate() / torch.get_num_threads() + rounds * reading


def _sizes(task: Task) -> dict[str, Any]:
    """Bytes written and bits per linear weight: as asked in bits, or what a size leaves, about."""
    entries, settings = task.model.entries, task.settings
    weights = sum(entries[item.name].numel for item in task.chosen)
    dense = sum(entries[item.name].nbytes for item in task.items if not item.grid)
    if settings.unit == "bits":
        size = int(settings.budget * weights / 8) + dense
        return {"writes_bytes": size, "bits_per_weight": {"linear": settings.budget}}
    bits = 8 * max(settings.budget - dense, 0) / max(weights, 1)
    return {"writes_bytes": int(settings.budget), "bits_per_weight": {"linear": round(bits, 2)}}


def _allocating(task: Task) -> float:
    """From the time that the choices of one weight take: rows are sampled, so it grows with the inputs."""
    chosen, settings = [item for item in task.chosen if item.linear], task.settings
    if not chosen:
        return 0.0
    inputs = [task.model.entries[item.name].shape[-2 if _transposed(item) else -1] for item in chosen]
    bits = settings.budget if settings.unit == "bits" else 3.0
    allocate.predicted(task, chosen[0], None, bits)
    began = time.perf_counter()
    allocate.predicted(task, chosen[0], None, bits)
    return (time.perf_counter() - began) * sum(inputs) / inputs[0]


def _transposed(item: Item) -> bool:
    return item.linear is not None and item.linear.transposed
