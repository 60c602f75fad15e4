"""What the entropy code will take: memory from the sizes of what it holds, time from a short probe of this machine."""

from __future__ import annotations

from typing import Any

import torch

from bntools.core.importance import metric
from bntools.core.importance.fisher_sweep import Sensitivity
from bntools.core.importance.sensitivity import embeddings
from bntools.tools.quantize.cost import passes as pass_cost
from bntools.tools.quantize.cost import probe as cost
from bntools.tools.quantize.cost.passes import Rates, Text, head_weights
from bntools.tools.quantize.entropy import levels
from bntools.tools.quantize.plan import Task
from bntools.tools.quantize.settings import EntropySettings

_PASSES = 1.6  # of the coding: some blocks, classes and streams of all, and what one thread codes alone
_ALONE = 2.5  # without compensation, two or three of all
_PROBE = 256  # rows and columns of the probe's matrix


def sizes(task: Task) -> dict[str, Any]:
    """Bytes written and bits per linear weight: as asked in bits, or what a size leaves, about."""
    model, asked = task.model, task.entropy
    names = {item.name for item in task.chosen}
    coded = names | (set(embeddings(model)) if asked.embedding else set())
    weights = sum(model.entries[name].numel for name in coded)
    dense = sum(entry.nbytes for name, entry in model.entries.items() if name not in coded)
    if asked.unit == "bits":
        return {
            "writes_bytes": int(asked.budget * weights / 8) + dense,
            "bits_per_weight": {"linear": asked.budget},
        }
    bits = 8 * max(asked.budget - dense - sum(map(len, model.files.values())) / 4, 0) / max(weights, 1)
    return {"writes_bytes": int(asked.budget), "bits_per_weight": {"linear": round(bits, 2)}}


def memory_bytes(task: Task, text: Text) -> int:
    """Peak memory: that of the sweep, or of the walk, or the matrices being coded."""
    model, items, asked = task.model, task.items, task.entropy
    coded = [model.entries[name].numel for name in embeddings(model)] if asked.embedding else []
    coded += [model.entries[item.name].numel for item in task.chosen]
    coding = 30 * sum(sorted(coded)[-torch.get_num_threads() :])
    peak = pass_cost.sweep_bytes(model, items, text, asked.two_sided, coding)
    if asked.compensate:
        peak = max(peak, pass_cost.compensated_bytes(model, items, text, coding))
    return cost.LIBRARIES + peak


def seconds(task: Task, text: Text) -> float:
    """Time of the sweep and the walk at measured rates, and of the coding at that of a probe."""
    model, items, asked = task.model, task.items, task.entropy
    rates = Rates.measured()
    pairs = [(size, out) for linears in cost.by_block(model, items).values() for size, out, _ in linears]
    factoring = sum(4 * (size**3 + out**3) for size, out in pairs) / rates.product
    weights = sum(size * out for size, out in pairs) + (head_weights(model) if asked.embedding else 0)
    coding = factoring + (_PASSES if asked.compensate else _ALONE) * weights * _coding(asked)
    total = pass_cost.sweep_seconds(model, items, text, asked.two_sided, rates)
    total += coding / torch.get_num_threads()
    return total + (pass_cost.compensated_seconds(model, items, text, rates) if asked.compensate else 0.0)


def _coding(asked: EntropySettings) -> float:
    """Seconds a weight of one thread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * _PROBE, _PROBE, generator=generator)
    moments = x.T @ x / len(x)
    sensitivity = Sensitivity(moments.diagonal(), moments, moments if asked.two_sided else None)
    weighed, w = metric.of_linear(sensitivity), torch.randn(_PROBE, _PROBE, generator=generator)
    return cost.least(lambda: levels.quantize(w, weighed, 0.3, asked.trellis)) / w.numel()
