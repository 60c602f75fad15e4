"""The estimate of a network as a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bntools.core.errors import usage
from bntools.tools.cost_fpga.first_order import TARGETS, count_layer, count_network
from bntools.tools.cost_fpga.network import PARTS, Layer


def network_report(
    layers: Sequence[Layer], part: str | None = None, clock: float = 5.0, corrector: Any = None
) -> dict[str, Any]:
    """The report of bntools-cost-fpga(1). clock: nanoseconds. Raises BnError (exit 2) for an unknown part."""
    if part is not None and part not in PARTS:
        raise usage(f"--part {part}: not known", f"known are {', '.join(PARTS)}")
    first = count_network(layers)
    total: dict[str, Any] = {
        name: {"value": first[name], "low": first[name], "high": None} for name in TARGETS
    }
    if corrector is not None:
        low, middle, high = corrector.predict([list(layers)])[0].T
        total = {
            name: {"value": float(middle[i]), "low": float(low[i]), "high": float(high[i])}
            for i, name in enumerate(TARGETS)
        }
    report: dict[str, Any] = {
        "kind": "cost-fpga",
        "calibrated": corrector is not None,
        "corrector": corrector.name if corrector is not None else None,
        "total": total,
        "first_order": first,
        "clock_ns": clock,
        "latency_us": total["cycles"]["value"] * clock / 1000,
        "inferences_per_s": 1e9 / (clock * max(1.0, total["interval"]["value"])),
        "layers": [_layer(layer) for layer in layers],
        "notes": [
            f"layer {index + 1}: reuse {layer.asked} is not legal, the nearest that is: {layer.reuse}"
            for index, layer in enumerate(layers)
            if layer.reuse != layer.asked
        ],
    }
    if part is not None:
        room = dict(zip(("dsp", "lut", "ff", "bram"), PARTS[part], strict=True))
        report["part"] = {
            "name": part, "room": room, "used": {name: total[name]["value"] / room[name] for name in room},
            "fits": all(total[name]["value"] <= room[name] for name in room),
        }  # fmt: skip
    return report


def _layer(layer: Layer) -> dict[str, Any]:
    counted = count_layer(layer)
    return {
        "type": layer.kind, "inputs": layer.inputs, "outputs": layer.outputs, "positions": layer.positions,
        "reuse": layer.reuse, "strategy": layer.strategy, **counted._asdict(),
    }  # fmt: skip
