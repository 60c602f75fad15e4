"""All methods at all budgets on all splits, against the full table and a small full table on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.progress import Step, no_step
from bntools.tools.embed_fit.methods.builders import BUILDERS
from bntools.tools.embed_fit.methods.fitting import Bench, Fitted, fit_plain
from bntools.tools.embed_fit.methods.plain import full_size
from bntools.tools.embed_fit.problem import Data, Problem, problem
from bntools.tools.embed_fit.settings import Settings

REFERENCE, SMALL = "reference", "small_full"


class Run(NamedTuple):
    """One method at one budget on one split: outputs of the test rows, facts; fitted only in the process that fits."""

    method: str
    budget: float
    split: int
    output: NDArray[np.float32]
    facts: dict[str, Any]
    fitted: Fitted | None = None


class Unit(NamedTuple):
    """What one part of a run does: a method on a split, all budgets of it."""

    method: str
    split: int


def method_of(name: str) -> Callable[[Bench, float], Fitted | None]:
    """fit(bench, budget) of a method."""
    if name in BUILDERS:
        return lambda bench, budget: fit_plain(bench, name, budget)
    if name == "spectral":
        from bntools.tools.embed_fit.methods.spectral import fit_spectral

        return fit_spectral
    if name == "ihas":
        from bntools.tools.embed_fit.methods.ihas import fit_ihas

        return fit_ihas
    from bntools.tools.embed_fit.methods import pruned

    return {"prune": pruned.fit_prune, "pep": pruned.fit_pep, "dnis": pruned.fit_dnis}[name]


def units(settings: Settings) -> list[Unit]:
    """The reference of a split first, then the baseline, then methods; splits one after another."""
    names = [REFERENCE, *([SMALL] if settings.baseline else []), *settings.methods]
    return [Unit(name, split) for split in range(settings.splits) for name in names]


def small_width(settings: Settings) -> int:
    """The narrowest full table a head can use."""
    return 1 if settings.model == "dcn" else 2


class Sweep:
    """Benches of the splits, made when they are needed."""

    def __init__(self, data: Data, settings: Settings) -> None:
        self.data, self.settings = data, settings
        self.benches: dict[int, Bench] = {}
        self.priors: dict[str, float] = {}

    def problem(self, split: int) -> Problem:
        return self.bench(split).problem

    def bench(self, split: int) -> Bench:
        if split not in self.benches:
            self.benches = {split: Bench(problem(self.data, self.settings, split), self.settings)}
        return self.benches[split]

    def run(self, unit: Unit, step: Step = no_step) -> list[Run]:
        """All budgets of a unit; the same whatever ran before it."""
        torch.set_num_threads(1)
        bench, settings = self.bench(unit.split), self.settings
        if unit.method in (REFERENCE, SMALL):
            budget = 1.0 if unit.method == REFERENCE else small_width(settings) / settings.dim
            fitted = fit_plain(bench, "full", budget)
            step(1)
            return [_run(bench, unit, budget, fitted)] if fitted else []
        runs = []
        for budget in settings.budgets:
            fitted = method_of(unit.method)(bench, budget)
            if fitted is not None:
                runs.append(_run(bench, unit, budget, fitted))
        step(1)
        return runs


def _run(bench: Bench, unit: Unit, budget: float, fitted: Fitted) -> Run:
    stored = fitted.stored
    size = (
        {"embedding": int(4 * fitted.numbers), "index": 0, "vocab": 0} if stored is None else stored.nbytes()
    )
    head = 0 if stored is None else sum(p.numel() for p in stored.head.values())
    facts = {
        **fitted.facts, "numbers": fitted.numbers, "share": fitted.numbers / full_size(bench.problem, bench.settings),
        "head": head, "bytes": {k: size[k] for k in ("embedding", "index", "vocab")}, "valid_loss": fitted.loss,
    }  # fmt: skip
    if stored is not None and unit.method in ("hash", "unified", "robe"):
        from bntools.tools.embed_fit.collisions import collisions

        facts["collisions"] = collisions(bench.problem, stored)
    return Run(unit.method, budget, unit.split, fitted.output, facts, fitted)
