"""Digits drawn scale by scale: each scale at a depth of its own, beside full depth and one depth for all (VARiant)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bntools.core.diffusion.next_scale.model import (
    BATCH,
    NAME,
    NextScaleModel,
    generate,
    load,
    parse_depths,
)
from bntools.core.diffusion.next_scale.tokens import SIDES
from bntools.core.diffusion.next_scale.transformer import equidistant
from bntools.core.errors import usage
from bntools.core.progress import Progress, no_progress

Depths = tuple[int, ...]


@dataclass(frozen=True)
class ScaleSettings:
    """labels: one an image, 0 to 9, or 10 for any; depth: as --depth reads, None for all layers; temperature and top_p:
    of the draws, 0 for the likeliest code; guidance: of the class against no class, two passes where it is not 1."""

    labels: tuple[int, ...]
    model: str = NAME
    depth: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    guidance: float = 1.0
    seed: int = 0
    batch: int = BATCH
    compare: bool = False

    def __post_init__(self) -> None:
        if not self.labels:
            raise usage("no image is asked for", "--cond 7 --count 10")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise usage(
                "--temperature is not negative, and --top-p in (0, 1]", "--temperature 1 --top-p 0.95"
            )


class ScaleDrawn(NamedTuple):
    """tensors: x0 [N, 1, 28, 28] in [-1, 1], with a comparison also full and few; report: of the man page."""

    tensors: dict[str, Tensor]
    report: dict[str, Any]


class ScaleCost(NamedTuple):
    """Of one image: operations of each scale, and elements of keys and values held at the end."""

    flops: tuple[int, ...]
    cached: int


def scale_cost(model: NextScaleModel, depths: Sequence[int], passes: int = 1) -> ScaleCost:
    """Two operations a weight and token, four a width for each pair of query and key that a layer's cache holds.

    passes: with and without the class, where guided.
    """
    width = model.transformer.norm.normalized_shape[0]
    weights = sum(p.numel() for p in model.transformer.blocks[0].parameters() if p.ndim == 2)
    held, flops = [0] * model.layers, []
    for side, depth in zip(SIDES, depths, strict=True):
        total = 0
        for layer in equidistant(depth, model.layers):
            held[layer] += side * side
            total += side * side * (2 * weights + 4 * width * held[layer])
        flops.append(passes * total)
    return ScaleCost(tuple(flops), passes * 2 * width * sum(held))


def equal_depth(model: NextScaleModel, depths: Sequence[int]) -> int:
    """The depth of all scales alike that costs nearest to a schedule."""
    wanted = sum(scale_cost(model, depths).flops)
    return min(
        range(1, model.layers + 1),
        key=lambda depth: abs(sum(scale_cost(model, [depth] * len(SIDES)).flops) - wanted),
    )


def open_depths(settings: ScaleSettings) -> tuple[NextScaleModel, Depths]:
    """The model and the depth of each scale. Raises BnError (exit 2, 3)."""
    model = load(settings.model)
    if settings.depth is None:
        return model, (model.layers,) * len(SIDES)
    return model, parse_depths(settings.depth, model.layers, model.early)


def plan(settings: ScaleSettings) -> dict[str, Any]:
    """The report without times: what each scale costs."""
    model, depths = open_depths(settings)
    return _report(settings, model, depths)


def sample(settings: ScaleSettings, progress: Progress = no_progress) -> ScaleDrawn:
    """Draw the images; with a comparison also at full depth and at one depth for all scales of equal cost.

    Same seed, same draws wherever the logits agree; batches of the ways take turns, so that times compare.
    """
    model, depths = open_depths(settings)
    ways: dict[str, Depths] = {"x0": depths}
    if settings.compare:
        ways |= {"full": (model.layers,) * len(SIDES), "few": (equal_depth(model, depths),) * len(SIDES)}
    labels = torch.tensor(settings.labels)
    parts: dict[str, list[Tensor]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    generate(model, labels[:1], settings.seed)  # what is compiled or loaded on first use is nobody's time
    with progress("images", len(labels) * len(ways)) as advance:
        for start in range(0, len(labels), settings.batch):
            rows = labels[start : start + settings.batch]
            for name in _turned(list(ways), start // settings.batch):
                began = time.perf_counter(), time.process_time()
                drawing = generate(
                    model, rows, settings.seed, depths=ways[name], temperature=settings.temperature,
                    top_p=settings.top_p, guidance=settings.guidance, start=start, batch=settings.batch,
                )  # fmt: skip
                seconds[0][name] += time.perf_counter() - began[0]
                seconds[1][name] += time.process_time() - began[1]
                parts[name].append(2 * drawing.images - 1)
                advance(len(rows))
    tensors = {name: torch.cat(images) for name, images in parts.items()}
    report = _report(settings, model, depths)
    report["totals"] |= {"wall": seconds[0]["x0"], "cpu": seconds[1]["x0"]}
    if settings.compare:
        report["compare"] = _compared(model, ways, tensors, seconds, 1 if settings.guidance == 1.0 else 2)
        report["speedup"] |= {
            "cpu": seconds[1]["full"] / max(seconds[1]["x0"], 1e-9),
            "wall": seconds[0]["full"] / max(seconds[0]["x0"], 1e-9),
        }
    return ScaleDrawn(tensors, report)


def _turned(names: list[str], turn: int) -> list[str]:
    """The names from another one on each time."""
    first = turn % len(names)
    return names[first:] + names[:first]


def _report(settings: ScaleSettings, model: NextScaleModel, depths: Depths) -> dict[str, Any]:
    passes = 1 if settings.guidance == 1.0 else 2
    cost, full = (scale_cost(model, each, passes) for each in (depths, [model.layers] * len(SIDES)))
    total, whole = sum(cost.flops), sum(full.flops)
    return {
        "kind": "sample-bottleneck", "model": settings.model, "class": "next-scale", "method": "depth",
        "seed": settings.seed, "count": len(settings.labels), "shape": [1, 28, 28], "layers": model.layers,
        "temperature": settings.temperature, "top_p": settings.top_p, "guidance": settings.guidance,
        "scales": [
            {"side": side, "tokens": side * side, "depth": depth, "layers": equidistant(depth, model.layers),
             "flops": flops}
            for side, depth, flops in zip(SIDES, depths, cost.flops, strict=True)
        ],
        "totals": {"nfe": len(SIDES), "flops": total, "cost": total / whole, "cache_bytes": 4 * cost.cached,
                   "wall": None, "cpu": None},
        "baseline": {"flops": whole, "cache_bytes": 4 * full.cached},
        "speedup": {"flops": whole / total}, "transitions": [], "warnings": [],
    }  # fmt: skip


def _compared(
    model: NextScaleModel, ways: dict[str, Depths], tensors: dict[str, Tensor],
    seconds: tuple[dict[str, float], dict[str, float]], passes: int,
) -> list[dict[str, Any]]:  # fmt: skip
    whole = sum(scale_cost(model, ways["full"], passes).flops)
    names = {"full": "full depth", "few": f"{ways['few'][0]} layers on all scales", "x0": "schedule"}
    size = tensors["full"].flatten(1).norm(dim=1)
    rows = []
    for tensor, name in names.items():
        apart = (tensors[tensor] - tensors["full"]).flatten(1).norm(dim=1) / size
        cost = scale_cost(model, ways[tensor], passes)
        rows.append({
            "name": name, "tensor": tensor, "depths": list(ways[tensor]), "nfe": len(SIDES),
            "cost": sum(cost.flops) / whole, "cache_bytes": 4 * cost.cached, "wall": seconds[0][tensor],
            "cpu": seconds[1][tensor], "speedup": seconds[1]["full"] / max(seconds[1][tensor], 1e-9),
            "distance": float(apart.mean()),
        })  # fmt: skip
    return rows


def facts_of(report: dict[str, Any]) -> dict[str, Any]:
    """`bntools.samples` of a report."""
    rows = [
        {key: row[key] for key in ("name", "tensor", "nfe", "cost", "wall", "depths")}
        for row in report.get("compare", [])
    ]
    return {
        "model": report["model"], "method": report["method"], "seed": report["seed"], "stages": report["scales"],
        "nfe": report["totals"]["nfe"], "wall": report["totals"]["wall"], "cost": report["totals"]["cost"],
        "rows": rows,
    }  # fmt: skip
