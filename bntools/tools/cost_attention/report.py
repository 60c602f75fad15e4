"""The counts of one attention as a report: orders, bounds, the best one and why, and what simulations say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bntools.core.errors import usage
from bntools.core.methods.devices import Device
from bntools.tools.cost_attention import traffic
from bntools.tools.cost_attention.settings import ITEM, Problem
from bntools.tools.cost_attention.traffic import Plan, Tile

_NAMES = {
    "rows": "rows outside (FlashAttention-2)", "columns": "keys outside (FlashAttention-1)",
    "spilled": "scores in slow memory, both products tiled", "backward": "backward, one pass",
    "backward-twice": "backward, two passes", "split": "split keys", "tile": "rows outside, the tile asked for",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """copies: attentions of the shape, heads of keys times batch. splits: of the keys, for few queries.

    tile: one to be priced beside the best. simulate: policies. line: elements of a cache line.
    """

    dtype: str = "bf16"
    copies: int = 1
    backward: bool = False
    solve: bool = False
    splits: int | None = None
    tile: Tile | None = None
    simulate: tuple[str, ...] = ()
    line: int = 1


def attention_report(p: Problem, settings: Settings, devices: Sequence[Device] = ()) -> dict[str, Any]:
    """The report of bntools-cost-attention(1). Raises BnError (exit 3) where the memory holds no tile."""
    plans = _plans(p, settings)
    best = min(plans, key=lambda plan: plan.moved)
    chosen = best if settings.solve else plans[0]
    item = ITEM[settings.dtype] * settings.copies
    bound, least = bounds(p), least_moved(p, settings.backward)
    report: dict[str, Any] = {
        "kind": "cost-attention",
        "order": chosen.name,
        "cost": {"elements": chosen.moved * settings.copies, "bytes": chosen.moved * item},
        "tiles": _tiles(chosen),
        "flops": 2 * chosen.products * settings.copies,
        "intensity": 2 * chosen.products * settings.copies / (chosen.moved * item),
        "memory": {"elements": p.memory, "resident": chosen.resident, "over_d2": p.memory / p.width**2},
        "compulsory": least * settings.copies,
        "bound": {**bound, "value": bound["value"] * settings.copies},
        "ratio": {"compulsory": chosen.moved / least, "bound": chosen.moved / bound["value"]},
        "alternatives": [_alternative(p, plan, settings) for plan in plans],
        "baseline": _alternative(p, traffic.standard(p), settings) if not settings.backward else None,
        "why": _why(p, chosen, best),
        "devices": {device.name: _time(chosen, settings, device) for device in devices},
    }
    if settings.simulate:
        report["simulated"] = _simulated(p, chosen, settings)
    return report


def least_moved(p: Problem, backward: bool) -> int:
    """Elements that any order moves: of a backward pass Q, K, V, O, dO in and dQ, dK, dV out."""
    return p.compulsory * (2 if backward else 1)


def bounds(p: Problem) -> dict[str, Any]:
    """Which bound of Saha and Ye holds, without its constant, which nobody states."""
    large = p.memory >= p.width**2
    value = p.pairs * p.width**2 / p.memory if large else p.pairs * p.width / math.sqrt(p.memory)
    return {
        "regime": "M >= d^2" if large else "M < d^2",
        "expression": "N^2 d^2 / M" if large else "N^2 d / sqrt(M)",
        "value": value,
        "constant": None,
    }


def _plans(p: Problem, settings: Settings) -> list[Plan]:
    plans = traffic.backward_plans(p) if settings.backward else traffic.forward_plans(p)
    if settings.splits is not None:
        if settings.backward:
            raise usage("--splits divides the keys of a forward pass", "leave out --backward")
        plans.insert(0, traffic.split_keys(p, settings.splits))
    if settings.tile is not None:
        make = traffic.backward_columns if settings.backward else traffic.outer_rows
        given = make(p, Tile(min(settings.tile.rows, p.rows), min(settings.tile.columns, p.keys)))
        if given.resident > p.memory:
            raise usage(
                f"a tile of {given.tile.rows} x {given.tile.columns} fills {given.resident:,} elements, "
                f"more than the {p.memory:,} there are",
                "a smaller --tile, or more --sram",
            )
        plans.insert(0, given)
    return plans


def _tiles(plan: Plan) -> dict[str, Any]:
    tiles: dict[str, Any] = {"rows": plan.tile.rows, "columns": plan.tile.columns}
    if plan.parts:
        tiles["passes"] = [{"order": part.name, **_tiles(part)} for part in plan.parts]
    return tiles


def _alternative(p: Problem, plan: Plan, settings: Settings) -> dict[str, Any]:
    return {
        "order": plan.name,
        "name": _NAMES.get(plan.name, plan.name),
        "elements": plan.moved * settings.copies,
        "bytes": plan.moved * settings.copies * ITEM[settings.dtype],
        "flops": 2 * plan.products * settings.copies,
        "tiles": _tiles(plan),
        "resident": plan.resident,
        "over_compulsory": plan.moved / least_moved(p, settings.backward),
    }


def _why(p: Problem, chosen: Plan, best: Plan) -> str:
    u = p.memory / p.width**2
    if chosen.name == "spilled":
        return f"M = {u:.3g} d^2 is below about 0.55 d^2, where writing the scores moves less than reading keys again"
    if chosen.name == best.name:
        return f"M = {u:.3g} d^2: no order here moves less"
    return f"{best.name} would move {best.moved / chosen.moved:.3g} of it; --solve takes the least"


def _time(plan: Plan, settings: Settings, device: Device) -> dict[str, Any]:
    compute = 2 * plan.products * settings.copies / device.rate(settings.dtype)[0]
    memory = plan.moved * settings.copies * ITEM[settings.dtype] / device.bandwidth
    bound = "compute" if compute > memory else "memory"
    return {"seconds": max(compute, memory), "compute": compute, "memory": memory, "bound": bound}


def _simulated(p: Problem, plan: Plan, settings: Settings) -> dict[str, Any]:
    from bntools.tools.cost_attention.simulation import simulate

    counted: dict[str, Any] = {"closed": plan.moved}
    for policy in settings.simulate:
        counted[policy] = simulate(p, plan, policy, settings.line)
    return counted
