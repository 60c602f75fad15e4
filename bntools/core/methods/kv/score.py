"""What a compressed cache costs: divergence on ordinary text, and loss on an early passage that comes again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import bad_input
from bntools.core.methods.kv.attention.sparse_prefill import SparsePrefill
from bntools.core.methods.kv.baselines import SimulatedCache, simulate
from bntools.core.methods.kv.layer import PlannedLayer
from bntools.core.methods.kv.plan import CachePlan
from bntools.core.methods.kv.prefix import ExactPrefix, read_on, read_prefix
from bntools.core.progress import Step, no_step

CONTINUED = 192
"""Tokens scored behind a prefix, at most an eighth of the window."""
PASSAGE = 64
"""Tokens of the passage that comes again; the first quarter is not scored."""
COPIED_FROM = 200
BASELINES = (("per-token", {"bits": 4}), ("kivi", {"bits": 2}))


@dataclass(frozen=True)
class ScoreWindow:
    """A prefix, what really follows it, and a passage from its beginning that is read again instead."""

    prefix: Tensor
    following: Tensor
    passage: Tensor


@dataclass(frozen=True)
class WindowLoss:
    """Of one window: divergence of each token after the prefix, change of its loss, and loss on the passage."""

    kl: Tensor
    change: float
    copied: float


@dataclass(frozen=True)
class ReferenceWindow:
    """The exact run of a window."""

    window: ScoreWindow
    prefix: ExactPrefix
    logs: Tensor
    copied: float


def windows_of(ids: Sequence[int], window: int, limit: int | None) -> list[ScoreWindow]:
    """Windows of a text; at least one, no more than hold `limit` tokens. Raises BnError (exit 3) on a short text."""
    window = min(window, len(ids))
    follow = min(CONTINUED, window // 8)
    if follow < 8:
        raise bad_input(
            f"the text has {len(ids)} tokens, too few to score a cache on", "--text FILE with a few pages"
        )
    count = max(1, min(len(ids), limit or len(ids)) // window)
    windows = []
    for start in range(0, count * window, window):
        part = torch.tensor(ids[start : start + window])
        prefix = part[: window - follow]
        at = min(COPIED_FROM, len(prefix) // 4)
        windows.append(ScoreWindow(prefix, part[window - follow :], prefix[at : at + min(PASSAGE, follow)]))
    return windows


def reference(model: Any, window: ScoreWindow, planned: list[int], watch: Any = None) -> ReferenceWindow:
    """Run a window with its exact cache."""
    prefix = read_prefix(model, window.prefix, planned, watch)
    logs = read_on(model, prefix, window.following)
    return ReferenceWindow(
        window, prefix, logs, _copied(read_on(model, prefix, window.passage), window.passage)
    )


def _copied(logs: Tensor, passage: Tensor) -> float:
    """Loss a token of the passage behind its first quarter."""
    skip = len(passage) // 4
    return float(-logs[skip - 1 : -1].gather(1, passage[skip:, None]).mean())


def compare(model: Any, exact: ReferenceWindow, cache: SimulatedCache) -> WindowLoss:
    """Read on from a compressed cache what was read from the exact one."""
    window = exact.window
    logs = read_on(model, exact.prefix, window.following, cache.kv, cache.keep)
    kl = (exact.logs.exp() * (exact.logs - logs)).sum(-1)
    target = window.following[1:, None]
    change = float((exact.logs[:-1].gather(1, target) - logs[:-1].gather(1, target)).mean())
    return WindowLoss(kl, change, _copied(read_on(model, exact.prefix, window.passage, cache.kv, cache.keep),
                                          window.passage))  # fmt: skip


def apply_plan(plan: CachePlan, prefix: ExactPrefix, coders: dict[int, Any] | None = None) -> SimulatedCache:
    """A prefix through the cache that a plan describes, as a file of it holds it: all but the first tokens coded."""
    if plan.method != "rate":
        return simulate(plan.method, prefix, plan.facts["options"])
    kv, size = {}, 0
    for layer, coder in (coders or plan.coders()).items():
        held = PlannedLayer(coder, plan.facts["sink"], plan.facts["recent"], plan.facts["gamma"])
        k, v = (x[None].float() for x in prefix.kv[layer])
        held.lazy_initialization(k, v)
        held.append(k, v)
        held.received = prefix.received[layer][None]
        held.flush(everything=True)
        size += held.nbytes()
        dense = held.dense()
        kv[layer] = (dense[0][0], dense[1][0])
    return SimulatedCache(kv, None, 8 * size / prefix.values)


def mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over windows and its standard error; None from one window alone."""
    x = torch.tensor(values, dtype=torch.float64)
    se = float(x.std() / math.sqrt(len(x))) if len(x) > 1 else None
    return {"mean": float(x.mean()), "se": se}


class CacheScore:
    """Gathers one method's losses over windows."""

    def __init__(self) -> None:
        self.losses: list[WindowLoss] = []
        self.copied: list[float] = []
        self.bits: list[float] = []
        self.kept: list[list[float]] = []

    def add(self, exact: ReferenceWindow, cache: SimulatedCache, loss: WindowLoss) -> None:
        self.losses.append(loss)
        self.copied.append(exact.copied)
        self.bits.append(cache.bits)
        keep = cache.keep
        self.kept.append([1.0 if keep is None else float(keep[i].float().mean()) for i in exact.prefix.kv])

    def report(self) -> dict[str, Any]:
        kl = [float(loss.kl.mean()) for loss in self.losses]
        tokens = torch.cat([loss.kl for loss in self.losses])
        error = mean_and_error(kl)
        if error["se"] is None and len(tokens) > 1:
            error["se"] = float(tokens.std() / math.sqrt(len(tokens)))
        return {
            "kl": error["mean"], "kl_se": error["se"], "kl_p99": float(tokens.double().quantile(0.99)),
            "delta_nll": mean_and_error([loss.change for loss in self.losses]),
            "copy_nll": mean_and_error([loss.copied for loss in self.losses]),
            "copy_above_full": mean_and_error([a.copied - b for a, b in zip(self.losses, self.copied, strict=True)]),
            "bits_per_value": sum(self.bits) / len(self.bits),
            "kept": [round(sum(column) / len(column), 4) for column in zip(*self.kept, strict=True)],
        }  # fmt: skip


def score(
    model: Any, plan: CachePlan, windows: Sequence[ScoreWindow], step: Step = no_step,
    baselines: Sequence[tuple[str, dict[str, Any]]] = BASELINES,
) -> dict[str, Any]:  # fmt: skip
    """Report of kind kv-eval for a model and a plan: both numbers, bytes, and baselines on the same text.

    Of a plan with a sparse prefill, whose numbers are those of both its losses, each of the two alone as well.
    """
    began = time.monotonic()
    scores = {"": CacheScore(), **{_label(*pair): CacheScore() for pair in baselines}}
    sparse = SparseScore(plan) if plan.sparse_prefill else None
    coders = plan.coders() if plan.method == "rate" else None
    values, ring = 0, 0
    for exact in _references(model, windows, plan.planned):
        read = exact if sparse is None else sparse.add(model, exact)
        cache = apply_plan(plan, read.prefix, coders)
        scores[""].add(read, cache, compare(model, read, cache))
        for pair in baselines:
            cache = simulate(pair[0], exact.prefix, pair[1])
            scores[_label(*pair)].add(exact, cache, compare(model, exact, cache))
        values = exact.prefix.values
        ring = min(plan.facts["recent"], len(exact.prefix.ids))
        step(1)
    result = scores[""].report()
    live = result["bits_per_value"] + (16 - result["bits_per_value"]) * ring / len(windows[0].prefix)
    full = scores[""].copied
    return {
        "kind": "kv-eval", "method": plan.method, "code": plan.facts.get("code"), **result,
        "copy_nll_full": mean_and_error(full), "live_bits_per_value": live if plan.method == "rate" else None,
        "cache_bytes": round(result["bits_per_value"] * values / 8), "cache_bytes_fp16": 2 * values,
        "ratio": 16 / result["bits_per_value"], "windows": len(windows),
        "window": len(windows[0].prefix) + len(windows[0].following), "prefix": len(windows[0].prefix),
        "scored": len(windows[0].following), "seconds": round(time.monotonic() - began, 3),
        "sparse_prefill": None if sparse is None else sparse.report(),
        "baselines": {name: one.report() for name, one in scores.items() if name},
    }  # fmt: skip


class SparseScore:
    """What a sparse prefill costs with an exact cache, and what the plan's codes cost behind an exact prefill."""

    def __init__(self, plan: CachePlan) -> None:
        self.plan = plan
        self.parts = {"prefill": CacheScore(), "codes": CacheScore()}
        self.kept: list[list[float]] = []
        self.products: list[float] = []

    def add(self, model: Any, exact: ReferenceWindow) -> ReferenceWindow:
        """Score both alone; returns the window with a prefix that was read sparsely, its reference the exact run."""
        prefill = SparsePrefill(self.plan.facts["options"]["tau"], self.plan.planned)
        prefix = read_prefix(model, exact.window.prefix, self.plan.planned, replace=prefill)
        read = replace(exact, prefix=prefix)
        plain = SimulatedCache(prefix.kv, None, 16.0)
        self.parts["prefill"].add(read, plain, compare(model, read, plain))
        coded = apply_plan(self.plan, exact.prefix)
        self.parts["codes"].add(exact, coded, compare(model, exact, coded))
        self.kept.append(prefill.kept())
        self.products.append(prefill.products())
        return read

    def report(self) -> dict[str, Any]:
        return {
            **{name: part.report() for name, part in self.parts.items()},
            "important": [round(sum(column) / len(column), 4) for column in zip(*self.kept, strict=True)],
            "products": sum(self.products) / len(self.products),
        }


def _label(method: str, options: dict[str, Any]) -> str:
    return f"{method} {options['bits']}-bit" if "bits" in options else method


def _references(model: Any, windows: Sequence[ScoreWindow], planned: list[int]) -> Iterator[ReferenceWindow]:
    for window in windows:
        yield reference(model, window, planned)
