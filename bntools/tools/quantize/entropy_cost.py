"""What the entropy code will take: memory from the sizes of what it holds, time from a short probe of this machine."""

from __future__ import annotations

from typing import Any

import torch

from bntools.core import metric
from bntools.core.model import Model
from bntools.core.sensitivity import embeddings
from bntools.core.states import RESIDENT
from bntools.core.sweep import Sensitivity
from bntools.tools.quantize import cost, levels
from bntools.tools.quantize.entropy import Asked
from bntools.tools.quantize.pipeline import Item

_PASSES = 3.5  # of the coding: the first ones of a fifth of the blocks, then two or three of all
_PROBE = 256  # rows and columns of the probe's matrix


def sizes(model: Model, items: list[Item], asked: Asked) -> dict[str, Any]:
    """Bytes written and bits per linear weight: as asked in bits, or what a size leaves, about."""
    names = {item.name for item in items if item.grid}
    coded = names | (set(embeddings(model)) if asked.embedding else set())
    weights = sum(model.entries[name].numel for name in coded)
    kept = sum(entry.nbytes for name, entry in model.entries.items() if name not in coded)
    if asked.unit == "bits":
        return {
            "writes_bytes": int(asked.budget * weights / 8) + kept,
            "bits_per_weight": {"linear": asked.budget},
        }
    bits = 8 * max(asked.budget - kept - sum(map(len, model.files.values())) / 4, 0) / max(weights, 1)
    return {"writes_bytes": int(asked.budget), "bits_per_weight": {"linear": round(bits, 2)}}


def memory_bytes(model: Model, items: list[Item], asked: Asked, tokens: int) -> int:
    """Peak memory: that of the sweep, or the matrices being coded."""
    coded = [model.entries[name].numel for name in embeddings(model)] if asked.embedding else []
    coded += [model.entries[item.name].numel for item in items if item.grid]
    coding = 30 * sum(sorted(coded)[-torch.get_num_threads() :])
    peak = sum(sweep_bytes(model, items, tokens, coding))
    if asked.compensate:
        peak = max(peak, cost.compensated_bytes(model, items, tokens, coding))
    return cost.LIBRARIES + peak


def sweep_bytes(model: Model, items: list[Item], tokens: int, coding: int) -> tuple[int, int]:
    """Bytes of the states of a sweep, and of a block with its moments, or of what codes matrices if that is more."""
    blocks = cost.by_block(model, items)
    width = int(model.config.get("hidden_size") or model.config.get("n_embd") or 0)
    each = 4 * tokens * width
    states = each * (len(blocks) + 2) if each <= RESIDENT else 0
    moments = max(
        (sum(8 * size * size + 8 * out * out for size, out, _ in linears) for linears in blocks.values()),
        default=0,
    )
    largest = max((max(size, out) for linears in blocks.values() for size, out, _ in linears), default=0)
    factors = 5 * 8 * largest * largest  # in float64
    return states, max(moments + factors, coding)


def seconds(model: Model, items: list[Item], asked: Asked, tokens: int) -> float:
    """Time of the sweep at the rate of products, and of the coding at that of a probe, feedback over outputs added."""
    rate = cost.product_rate()
    pairs = [(size, out) for linears in cost.by_block(model, items).values() for size, out, _ in linears]
    factoring = sum(4 * (size**3 + out**3) for size, out in pairs) / rate
    weights = sum(size * out for size, out in pairs) + (_head(model) if asked.embedding else 0)
    coding = factoring + _PASSES * weights * _coding(asked)
    total = sweep_seconds(model, items, tokens, asked.two_sided, rate) + coding / torch.get_num_threads()
    return total + (cost.compensated_seconds(model, items, tokens, rate) if asked.compensate else 0.0)


def sweep_seconds(model: Model, items: list[Item], tokens: int, outputs: bool, rate: float) -> float:
    """Time of a sweep that gathers the moments of inputs, and those of gradients across outputs where asked for."""
    total = tokens * 4 * _head(model) / rate
    for linears in cost.by_block(model, items).values():
        for size, out, _ in linears:
            forward = 4 * size * out  # twice: on the way there, and again on the way back
            backward = 2 * size * out
            inputs = 1.5 * size * size  # halved by symmetry: weighted ones, and plain ones that are shared
            total += tokens * (forward + backward + inputs + (out * out if outputs else 0)) / rate
    return total / torch.get_num_threads()


def _head(model: Model) -> int:
    return max((model.entries[name].numel for name in embeddings(model)), default=0)


def _coding(asked: Asked) -> float:
    """Seconds a weight of one thread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * _PROBE, _PROBE, generator=generator)
    moments = x.T @ x / len(x)
    found = Sensitivity(moments.diagonal(), moments, moments if asked.two_sided else None)
    one, w = metric.of_linear(found), torch.randn(_PROBE, _PROBE, generator=generator)
    return cost.least(lambda: levels.quantize(w, one, 0.3, asked.trellis)) / w.numel()
