"""The embedded next-scale model with histories cut or coded: ScaleKV, the same budget for all layers, and `rate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.artifact.reader import open_path
from bntools.core.errors import bad_input
from bntools.core.methods.kv.entropy_code import EntropyRows, LevelTables
from bntools.core.methods.kv.metric import CacheMoments, QueryMetric
from bntools.core.progress import Progress, no_progress
from bntools.tools.kv_compress import allocate
from bntools.tools.kv_compress.scale_budgets import ScaleBudgets, plan_budgets
from bntools.tools.kv_compress.settings import MEASURED_STEPS

WATCHED = 16
"""Tokens of the newest map whose queries choose: the centres of a grid of 4 x 4."""
CALIBRATION, SCORED = 20, 32
Pair = tuple[Tensor, Tensor]


class HistoryCache:
    """Keys and values [N, heads, tokens, d] of one layer, of which a subclass keeps what it will after each map."""

    def __init__(self) -> None:
        self.history: Pair | None = None
        self.newest: Pair | None = None

    def update(self, k: Tensor, v: Tensor, scale_index: int) -> Pair:
        if scale_index == 0 or self.history is None:
            self.history = None
            both = (k, v)
        else:
            both = (torch.cat([self.history[0], k], 2), torch.cat([self.history[1], v], 2))
        self.newest, self.all = (k, v), both
        return both

    def observe(self, q: Tensor, scale_index: int) -> None:
        self.history = self.kept(q, scale_index)

    def kept(self, q: Tensor, scale_index: int) -> Pair:
        return self.all


class StatisticsCache(HistoryCache):
    """Gathers the moments and the mean attention of each scale's queries [scales, tokens]."""

    def __init__(self, heads: int, width: int, maps: Sequence[int]) -> None:
        super().__init__()
        self.moments = CacheMoments.empty(heads, width)
        self.mass = np.zeros((2, len(maps), sum(maps)))

    def kept(self, q: Tensor, scale_index: int) -> Pair:
        assert self.newest is not None
        scaling = q.shape[-1] ** -0.5
        self.moments.add(q, *self.newest, scaling)
        chances = (q @ self.all[0].transpose(2, 3) * scaling).softmax(-1).mean((1, 2))  # [N, tokens]
        for half in (0, 1):
            self.mass[half, scale_index, : chances.shape[1]] = chances[half::2].double().mean(0).numpy()
        return self.all


class EvictingCache(HistoryCache):
    """Keeps so many tokens for the next scale: the watched ones of the newest map and what these look at."""

    def __init__(self, budget: Sequence[int]) -> None:
        super().__init__()
        self.budget = budget

    def kept(self, q: Tensor, scale_index: int) -> Pair:
        count = int(self.budget[scale_index + 1]) if scale_index + 1 < len(self.budget) else 0
        keys, values = self.all
        total, fresh = keys.shape[2], q.shape[2]
        if count >= total:
            return self.all
        watched = centres(round(fresh**0.5))
        chances = (q[:, :, watched] @ keys.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1).mean(2)
        score = torch.nn.functional.avg_pool1d(chances, 3, 1, 1)
        own = watched[: max(count // 2, 1)] + total - fresh if count else watched[:0]
        score[:, :, own] = float("inf")
        rows = score.topk(count, -1).indices.sort(-1).values[..., None].expand(-1, -1, -1, keys.shape[-1])
        return keys.gather(2, rows), values.gather(2, rows)


def centres(side: int) -> Tensor:
    """Places of the centres of 4 x 4 equal patches of a map, or of all its tokens where it is smaller."""
    if side <= 4:
        return torch.arange(side * side)
    line = ((torch.arange(4) + 0.5) * side / 4).long()
    return (line[:, None] * side + line[None]).reshape(-1)


class RatedCache(HistoryCache):
    """Codes each map once when it is complete; counts its bits. which: only keys (0) or values (1) are coded."""

    def __init__(self, coder: EntropyRows, which: int | None = None) -> None:
        super().__init__()
        self.coder, self.which, self.bits, self.values = coder, which, 0.0, 0

    def kept(self, q: Tensor, scale_index: int) -> Pair:
        assert self.newest is not None
        n, heads, fresh, d = self.newest[0].shape
        rows = [x.transpose(0, 1).reshape(heads, n * fresh, d) for x in self.newest]
        classes = np.zeros((heads, n * fresh), np.int8)
        self.bits += self.coder.measure(self.coder.coordinates(*rows), classes)
        self.values += 2 * n * heads * fresh * d
        back = [x.reshape(heads, n, fresh, d).transpose(0, 1) for x in self.coder.rounded(*rows, classes)]
        pair = [back[at] if self.which in (None, at) else x for at, x in enumerate(self.newest)]
        if self.history is None:
            return pair[0], pair[1]
        return torch.cat([self.history[0], pair[0]], 2), torch.cat([self.history[1], pair[1]], 2)


def divergence(exact: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """KL [N] of all maps but the first, mean over tokens."""
    parts = []
    for one, two in zip(exact[1:], other[1:], strict=True):
        a, b = one.log_softmax(-1), two.log_softmax(-1)
        parts.append((a.exp() * (a - b)).sum(-1))
    return torch.cat(parts, 1).mean(1)


def score_scales(model: Any, budget: float, *, seed: int = 0, strict: bool = False,
                 progress: Progress = no_progress) -> dict[str, Any]:  # fmt: skip
    """Report of kind kv-scales: KL of ScaleKV, uniform eviction and `rate` at the bytes of a share of the history.

    Calibrated on images that the model draws, scored on others.
    """
    from bntools.core.diffusion.next_scale import model as next_scale
    from bntools.core.diffusion.next_scale.tokens import SIDES

    maps = [side * side for side in SIDES]
    first = torch.arange(CALIBRATION) % 10
    labels = (torch.arange(SCORED) * 7) % 10
    seen = next_scale.generate(model, first, 2 * seed).codes
    codes = next_scale.generate(model, labels, 2 * seed + 1).codes

    def logits(caches: Sequence[Any] | None, of: tuple[Tensor, Tensor] = (codes, labels)) -> list[Tensor]:
        return next_scale.taught_logits(model, *of, caches=caches)

    with progress("next-scale model", 3) as step:
        statistics = _statistics(model, lambda caches: logits(caches, (seen, first)), maps)
        map_of = np.repeat(np.arange(len(maps)), maps)
        halves = tuple(np.stack([one.mass[half] for one in statistics]) for half in (0, 1))
        paper = plan_budgets((halves[0], halves[1]), map_of, budget, strict=True)
        plan = paper if strict else plan_budgets((halves[0], halves[1]), map_of, budget)
        step(1)
        coders, bits = _rated(model, statistics, (seen, first), 16 * budget)
        step(1)
        exact = logits(None)
        uniform = [round(budget * int((map_of < scale).sum())) for scale in range(len(maps))]
        caches: dict[str, list[Any]] = {
            "uniform": [EvictingCache(uniform) for _ in statistics],
            "scalekv": [EvictingCache(list(row)) for row in paper.tokens],
            "rate": [RatedCache(coder) for coder in coders],
        }
        kl = {name: divergence(exact, logits(some)) for name, some in caches.items()}
        step(1)
    spent = sum(c.bits for c in caches["rate"]) / sum(c.values for c in caches["rate"])
    ratio = {name: float(kl[name].mean() / kl["uniform"].mean()) for name in ("scalekv", "rate")}
    return {
        "kind": "kv-scales", "budget": budget, "images": SCORED, "maps": maps,
        "kl": {name: {"mean": float(x.mean()), "se": float(x.std() / len(x) ** 0.5)} for name, x in kl.items()},
        "ratio": ratio, "rate_bits_per_value": spent, "rate_planned_bits": bits, **_described(plan, strict),
    }  # fmt: skip


def open_model(name: str) -> Any:
    """The embedded next-scale model, or that of a file. Raises BnError (exit 2, 3) for any other."""
    from bntools.core.diffusion.next_scale import model as next_scale

    return next_scale.load(name)


def plan_attention(path: str, budget: float, strict: bool) -> dict[str, Any]:
    """Budgets from statistics alone: `map` I32 [T], scale of each token, and `mass` F32 [layers, scales, T].

    Raises BnError (exit 2, 3) for a file that has no such tensors.
    """
    with open_path(path) as file:
        missing = [name for name in ("map", "mass") if name not in file.entries]
        if missing:
            raise bad_input(
                f"tensor {missing[0]!r} is missing from {path}", "map I32 [T], mass F32 [layers, scales, T]"
            )
        map_of, mass = file.tensor("map").long().numpy(), file.tensor("mass").double().numpy()
    if (
        mass.ndim != 3
        or map_of.shape != mass.shape[2:]
        or sorted(set(map_of.tolist())) != list(range(mass.shape[1]))
    ):
        raise bad_input(f"{path}: map {list(map_of.shape)} and mass {list(mass.shape)} do not go together")
    plan = plan_budgets((mass, mass), map_of, budget, strict=strict)
    return {
        "kind": "kv-scales",
        "budget": budget,
        "maps": np.bincount(map_of).tolist(),
        **_described(plan, strict),
    }


def _described(plan: ScaleBudgets, strict: bool) -> dict[str, Any]:
    return {
        "method": "scalekv", "roles": plan.roles, "strict": strict, "spread": plan.spread, "agreement": plan.agreement,
        "drafter": plan.drafter.tolist(), "tokens": plan.tokens.tolist(), "index": plan.index.round(5).tolist(),
    }  # fmt: skip


def _statistics(model: Any, run: Callable[[list[Any]], Any], maps: list[int]) -> list[StatisticsCache]:
    blocks = model.transformer.blocks
    heads = blocks[0].heads
    caches = [StatisticsCache(heads, blocks[0].out.weight.shape[1] // heads, maps) for _ in blocks]
    run(caches)
    return caches


def _rated(
    model: Any, statistics: list[StatisticsCache], calibration: tuple[Tensor, Tensor], bits: float
) -> tuple[list[EntropyRows], float]:
    """Coders of all layers at so many bits a value, each layer measured as that of a language model is."""
    from bntools.core.diffusion.next_scale import model as next_scale

    metrics = [
        QueryMetric.of(one.moments, block.out.weight.detach())
        for one, block in zip(statistics, model.transformer.blocks, strict=True)
    ]
    y = []
    for one, metric in zip(statistics, metrics, strict=True):
        rows = [x.transpose(0, 1).flatten(1, 2) for x in one.all]
        y.append(torch.cat([metric.to(0, rows[0]), metric.to(1, rows[1])], -1).contiguous().numpy())
    classes = [np.zeros(rows.shape[:2], np.int8) for rows in y]
    steps = np.broadcast_to(np.array(MEASURED_STEPS), (len(y), 2))
    sample = allocate.CacheSample(metrics, y, classes, steps**-2.0, 0.0)
    rough = allocate.entropy_rows(sample, 1.0, allocate.fit_tables(sample, 1.0, 2)[0])
    exact = next_scale.taught_logits(model, *calibration)
    sensitivity: NDArray[np.float64] = np.empty((len(y), 2))
    for at, which in np.ndindex(len(y), 2):
        caches: list[Any] = [HistoryCache() for _ in y]
        caches[at] = RatedCache(rough[at], which)
        kl = float(divergence(exact, next_scale.taught_logits(model, *calibration, caches=caches)).mean())
        sensitivity[at, which] = max(kl / MEASURED_STEPS[which] ** 2, 1e-7)
    sample = allocate.CacheSample(metrics, y, classes, sensitivity, 0.0)
    tensors, facts = allocate.entropy_plan(sample, bits)
    tables = LevelTables(tensors["tables"].numpy(), tensors["centres"].numpy())
    return allocate.entropy_rows(sample, facts["distance"], tables), facts["coded_bits"]
