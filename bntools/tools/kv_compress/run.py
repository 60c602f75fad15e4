"""A plan from a model and a calibration text; a prompt's cache as a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import GATE, BnError, bad_input
from bntools.core.methods.kv import score
from bntools.core.methods.kv.cache import PlannedCache, full_layers
from bntools.core.methods.kv.plan import VERSION, CachePlan, describe_model
from bntools.core.progress import Progress, no_progress
from bntools.tools.kv_compress import allocate
from bntools.tools.kv_compress.calibrate import Calibration, calibrate
from bntools.tools.kv_compress.settings import Settings, baseline_options

LEAST_TOKENS = 512
_TRIES = 7


@dataclass(frozen=True)
class PlanMaker:
    """A calibrated model: plans of any size from it."""

    model: Any
    calibration: Calibration
    settings: Settings
    facts: dict[str, Any]

    def plan(self, bits: float, exact: float | None = None) -> CachePlan:
        """The plan that takes `bits` a value of a context, its first tokens counted; exact: for the code `fixed`."""
        context, sink = self.settings.context, self.settings.sink
        coded = (bits * context - 16 * sink) / (context - sink)
        if coded <= 0.02:
            raise BnError(f"{bits:g} bits do not hold {sink} exact tokens of {context}", "--sink 0", GATE)
        sample = self.calibration.sample(self.settings)
        if self.settings.code == "entropy":
            tensors, more = allocate.entropy_plan(sample, coded)
        else:
            tensors, more = allocate.fixed_plan(sample, coded, exact or 0.0, self.settings.seed)
        return self._finished(tensors, more)

    def _finished(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> CachePlan:
        context, sink = self.settings.context, self.settings.sink
        bits = (more["coded_bits"] * (context - sink) + 16 * sink) / context
        model = self.facts["model"]
        values = 2 * len(self.calibration.planned) * model["kv_heads"] * model["head_dim"]
        layers = []
        for at, index in enumerate(self.calibration.planned):
            part = {"index": index, "role": None, "budget": None}
            for which, name in enumerate("kv"):
                part[name] = {"sensitivity": float(self.calibration.sensitivity[at, which]),
                              "bits": round(more["bits"][at][which], 4)}  # fmt: skip
                if "steps" in more:
                    part[name]["step"] = more["steps"][at][which]
            layers.append(part)
        facts = {**self.facts, "code": self.settings.code, "bits": round(bits, 4),
                 "bytes_per_token": round(bits * values / 8, 1), "gamma": self.gamma, "layers": layers,
                 "exact": more.get("exact")}  # fmt: skip
        metrics = self.calibration.metrics
        stored = {f"{name}.{part}": torch.stack([getattr(m, part)[which] for m in metrics]).half()
                  for which, name in enumerate("kv") for part in ("mean", "forward")}  # fmt: skip
        return CachePlan(facts, {**stored, **tensors})

    @property
    def gamma(self) -> float:
        return self.settings.tokens if self.settings.code == "entropy" else 0.0

    def divergence(self, plan: CachePlan) -> list[float]:
        """On each calibration window, whose text the plan has seen."""
        coders = plan.coders()
        return [
            float(score.compare(self.model, exact, score.apply_plan(plan, exact.prefix, coders)).kl.mean())
            for exact in self.calibration.references
        ]

    def best(self, bits: float) -> CachePlan:
        """The plan of a size, of the code `fixed` with the share of exact tokens that diverges least."""
        if self.settings.code == "entropy":
            return self.plan(bits)
        if self.settings.exact != "auto":
            return self.plan(bits, float(self.settings.exact))
        shares = [share for share in allocate.EXACT_SHARES if 16 * share < bits / 2]
        plans = [self.plan(bits, share) for share in shares]
        return min(plans, key=lambda plan: sum(self.divergence(plan)))

    def within(self, most: float) -> CachePlan:
        """The smallest plan whose divergence on the calibration text is at most so much: secants of log KL over bits.

        Raises BnError (exit 4) where none holds it.
        """
        top = 16.0 if self.settings.code == "entropy" else 6.0
        low, high, best = 0.15, top, None
        bits, seen = min(2.0, top), []
        for _ in range(_TRIES):
            plan = self.best(bits)
            kl = float(np.mean(self.divergence(plan)))
            seen.append((bits, math.log(max(kl, 1e-9))))
            if kl <= most:
                high, best = bits, plan
                if kl > 0.97 * most:
                    break
            else:
                low = bits
            bits = _next(seen, math.log(0.985 * most), low, high)
        if best is None:
            raise BnError(f"no plan of {top:g} bits or fewer holds --max-kl {most:g}", "allow more", GATE)
        return best


def _next(seen: Sequence[tuple[float, float]], aim: float, low: float, high: float) -> float:
    """Where the line through the two last points meets the aim, inside of the bracket."""
    slope = -1.3  # of ln KL a bit: 2 ln 2 at high rates
    if len(seen) > 1 and seen[-1][0] != seen[-2][0]:
        slope = min((seen[-1][1] - seen[-2][1]) / (seen[-1][0] - seen[-2][0]), -0.3)
    guess = seen[-1][0] + (aim - seen[-1][1]) / slope
    return min(max(guess, low + 0.02 * (high - low)), high - 0.02 * (high - low))


def make_maker(model: Any, ids: list[int], settings: Settings, progress: Progress = no_progress) -> PlanMaker:
    """Calibrate a transformers model on token ids. Raises BnError (exit 3) for too few, or a model without a cache."""
    planned = full_layers(model)
    if len(ids) < LEAST_TOKENS:
        raise bad_input(
            f"the calibration text has {len(ids)} tokens, {LEAST_TOKENS} are needed", "--calib FILE"
        )
    context = min(settings.context, len(ids))
    settings = replace(settings, context=context)
    windows = score.windows_of(ids, context, max(settings.calib_tokens, context))
    calibration = calibrate(model, windows, planned, settings, progress)
    used = ids[: len(windows) * context]
    facts = {
        "bntools.kv": VERSION, "model": describe_model(model), "method": "rate", "sink": settings.sink,
        "recent": settings.recent, "tables": None, "predicted_kl": None,
        "calibration": {"sha256": hashlib.sha256(np.array(used, "<i4").tobytes()).hexdigest(), "tokens": len(used),
                        "context": context},
    }  # fmt: skip
    return PlanMaker(model, calibration, settings, facts)


def make_plan(model: Any, ids: list[int], settings: Settings, progress: Progress = no_progress) -> CachePlan:
    """The plan that the settings ask for, with the divergence it has on the calibration text."""
    if settings.method != "rate":
        plan = baseline_plan(model, settings)
        return measured_prefill(model, plan, ids, settings, progress) if settings.sparse_prefill else plan
    maker = make_maker(model, ids, settings, progress)
    bits = settings.bits
    if settings.size is not None:
        shape = maker.facts["model"]
        values = 2 * len(maker.calibration.planned) * shape["kv_heads"] * shape["head_dim"] * settings.size[1]
        bits = 8 * settings.size[0] / values
        if not 0.1 <= bits <= 16:
            raise BnError(
                f"--bytes comes to {bits:.3g} bits a value, not within 0.1 and 16", "another --bytes", 2
            )
    with progress("planning", 1) as step:
        plan = maker.best(bits) if bits is not None else maker.within(float(settings.max_kl or 0))
        plan.facts["predicted_kl"] = float(np.mean(maker.divergence(plan)))
        step(1)
    return plan


def baseline_plan(model: Any, settings: Settings) -> CachePlan:
    """A plan that names a method and its options; nothing is calibrated."""
    layers = [{"index": index, "role": None, "budget": None} for index in full_layers(model)]
    return CachePlan({
        "bntools.kv": VERSION, "model": describe_model(model), "method": settings.method, "code": None, "bits": None,
        "bytes_per_token": None, "sink": 0, "recent": 0, "gamma": 0.0, "layers": layers, "tables": None,
        "predicted_kl": None, "calibration": None, "options": baseline_options(settings),
        "sparse_prefill": settings.sparse_prefill or None,
    })  # fmt: skip


def measured_prefill(
    model: Any, plan: CachePlan, ids: list[int], settings: Settings, progress: Progress
) -> CachePlan:
    """The same plan with what its sparse prefill costs on the calibration text, alone and with its codes."""
    context = min(settings.context, len(ids))
    windows = score.windows_of(ids, context, max(settings.calib_tokens, context))
    with progress("measuring the prefill", len(windows)) as step:
        report = score.score(model, plan, windows, step, baselines=())
    facts = {**plan.facts, "predicted_kl": report["kl"], "sparse_prefill": report["sparse_prefill"]}
    return CachePlan(facts, plan.tensors)


@torch.no_grad()
def store_prompt(model: Any, plan: CachePlan, ids: list[int]) -> tuple[PlannedCache, Tensor]:
    """The cache of a prompt, all of it coded, and the ids it is of."""
    if len(ids) <= plan.facts["sink"]:
        raise bad_input(f"the prompt has {len(ids)} tokens, no more than are kept exact", "a longer --text")
    cache = PlannedCache.from_plan(plan, model)
    row = torch.tensor(ids)
    try:
        model(row[None].to(model.device), past_key_values=cache, logits_to_keep=1)
        cache.flush()
    finally:
        cache.detach()
    return cache, row
