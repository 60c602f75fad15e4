"""What an artifact says of the run that made it: report, side files, config, history."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from bntools.core.artifact.writer import Writer
from bntools.core.model import history
from bntools.core.model.model import Model
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.tools.quantize import units
from bntools.tools.quantize.plan import Result, skipped
from bntools.tools.quantize.settings import RunOptions

_REASONS = 40  # more are counted, not listed


def summarize(results: list[Result], model: Model) -> dict[str, Any]:
    """The report of a run: counts, dimensions and bits per weight with all metadata counted."""
    coded = [result for result in results if result.spec is not None]
    bits = sum(result.measured["bits_per_weight"] * model.entries[result.name].numel for result in coded)
    weights = sum(model.entries[result.name].numel for result in coded)
    dense = sum(model.entries[result.name].nbytes for result in results if result.spec is None)
    everything = sum(entry.numel for entry in model.entries.values())
    reasons = skipped(results)
    dims = Counter(result.spec.dim for result in coded if isinstance(result.spec, GroupSpec))
    return {
        "kind": "quantize",
        "tensors": len(coded),
        "weights": weights,
        "dims": dict(sorted(dims.items())),
        "bits_per_weight": {
            "linear": round(bits / max(weights, 1), 4),
            "model": round((bits + 8 * dense) / max(everything, 1), 4),
        },
        "skipped": reasons if len(reasons) <= _REASONS else dict(Counter(reasons.values())),
    }


def add_all(out: Writer, result: Result) -> None:
    """Write the tensors of a result."""
    for name, tensor in result.tensors.items():
        out.add(name, tensor)


def line(result: Result) -> str:
    """One tensor's line for -v."""
    if result.spec is None:
        return f"{result.name}: kept, {result.reason}"
    errors = result.measured.get("errors")
    both = f", oc {errors['oc']:.3g} ic {errors['ic']:.3g}" if errors else ""
    return (
        f"{result.name}: {grouped.kind_of(result.spec)} {result.measured['bits_per_weight']:.3f} bits{both}"
    )


def quantization_json(results: list[Result]) -> bytes:
    """The side file that says how each weight is packed."""
    return json.dumps(units.table(results), separators=(",", ":")).encode()


def describe(
    model: Model, results: list[Result], *, report: dict[str, Any], kind: dict[str, Any], entry: dict[str, Any],
    out: Writer,
) -> None:  # fmt: skip
    """Side files, config and history of a quantized model. kind: what config.json says of the codes."""
    out.files = {**model.files, grouped.FILE: quantization_json(results)}
    # Not model.safetensors: transformers would take that, find no dense weights and fill in random ones.
    out.weights_file = "packed.safetensors"
    out.config = {**model.config, "quantization_config": {
        "quant_method": "bntools", "version": grouped.VERSION, **kind,
    }}  # fmt: skip
    out.describe("report", report)
    out.describe("history", [*model.history, entry])


def history_entry(run: RunOptions, seed: int, source: dict[str, Any]) -> dict[str, Any]:
    """This run's stage of the history. source: the fingerprint of the input."""
    return history.entry("quantize", list(run.command), seed, [source], run.started)
