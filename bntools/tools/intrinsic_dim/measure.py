"""From settings to a report: one search, a grid of searches, a part of one, or what it would cost."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

from bntools.core.errors import BnError, usage
from bntools.core.work.shards import Shard
from bntools.tools.intrinsic_dim import report as reports
from bntools.tools.intrinsic_dim import search
from bntools.tools.intrinsic_dim.execute import Runner, Step
from bntools.tools.intrinsic_dim.ledger import Ledger
from bntools.tools.intrinsic_dim.problem import SAID, Gradients, Problem, Source, open_problem
from bntools.tools.intrinsic_dim.runs import Job, Run
from bntools.tools.intrinsic_dim.search import Found, Plan, Search

KIND = "intrinsic-dim"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a search is told besides its source. lr: learning rates, None to search for them."""

    threshold: float = 0.9
    seeds: int = 3
    dims: tuple[int, ...] | None = None
    lr: tuple[float, ...] | None = None
    warm: bool = True
    first_seed: int = 0


def plan_for(problem: Problem, settings: Settings) -> Plan:
    """The plan for one problem. Raises BnError (exit 2) for dimensions that it cannot have."""
    least = (
        len(problem.layers) + 1 if isinstance(problem, Gradients) and problem.source.projection == SAID else 1
    )
    for dim in settings.dims or ():
        if not least <= dim <= problem.size:
            raise usage(f"--dims {dim}: the dimensions here are {least} to {problem.size}", "choose others")
    seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
    return Plan(
        problem.size, problem.base_rate, problem.spans_from_floor, threshold=settings.threshold, seeds=seeds,
        rates=settings.lr, dims=settings.dims, warm=settings.warm and isinstance(problem, Gradients), least=least,
        guessing=getattr(problem, "guessing", None),
    )  # fmt: skip


def describe(source: Source, problem: Problem) -> dict[str, Any]:
    """What was measured, for the head of a report."""
    kind = getattr(problem, "kind", "")
    return {
        "kind": KIND, "model": source.model, "data": source.data or source.env, "scored": problem.scored,
        "projection": f"said-{kind}" if source.projection == SAID else kind, "shuffle": source.shuffle,
        "samples": source.share, "epochs": source.epochs,
    }  # fmt: skip


def measure(
    source: Source, settings: Settings, ledger: Ledger, workers: int, step: Step
) -> tuple[dict[str, Any], Found, Problem]:
    """One search: its report, what it found, and the problem."""
    began = time.monotonic()
    problem = open_problem(source)
    plan = plan_for(problem, settings)
    with Runner(source, problem, ledger, workers, step) as runner:
        search = Search(plan, runner)()
        report = describe(source, problem) | reports.summary(search, plan)
        report |= {"seconds": {"wall": round(time.monotonic() - began, 1), "runs": reports.seconds(search)}}
    return report, search, problem


def part(
    source: Source, settings: Settings, ledger: Ledger, workers: int, step: Step, which: Shard
) -> dict[str, Any]:
    """Part I of N of a list of dimensions; its runs are in the ledger afterwards."""
    problem = open_problem(source)
    with Runner(source, problem, ledger, workers, step) as runner:
        search = Search(plan_for(problem, settings), runner)
        search.part(which.index, which.count)
        return {
            "kind": "part",
            "shard": str(which),
            "runs": len({run.key for run in search.runs}),
        }


def gather(source: Source, settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """The report of all parts. Raises BnError (exit 3) where runs are missing."""
    began = time.monotonic()
    problem = open_problem(source)
    plan = plan_for(problem, settings)
    with Runner(source, problem, ledger, 1, lambda run: None) as runner:

        def kept(jobs: Sequence[Job]) -> list[Run]:
            missing = [job for job in jobs if runner.known(job) is None]
            if missing:
                where = "the baseline" if missing[0].dim is None else f"dimension {missing[0].dim}"
                raise BnError(
                    f"runs of {where} are missing", "run that --shard first, with the same options", 3
                )
            return runner(jobs)

        search = Search(plan, kept)()
        spent = {"wall": round(time.monotonic() - began, 1), "runs": reports.seconds(search)}
        return describe(source, problem) | reports.summary(search, plan) | {"seconds": spent}


def grid(
    source: Source, settings: Settings, ledger: Ledger, workers: int, step: Step, widths: Sequence[int],
    depths: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """A search for every width and depth of a fully connected network."""
    cells = []
    for depth in depths:
        for width in widths:
            one = dataclasses.replace(source, model="fc:" + ",".join([str(width)] * depth))
            report, _, _ = measure(one, settings, ledger, workers, step)
            key = reports.dimension_key(report)
            cells.append(
                {
                    "width": width,
                    "depth": depth,
                    **{k: report[k] for k in ("model", "D", key, "baseline", "warnings", "seconds")},
                }
            )
    head = {
        k: v
        for k, v in report.items()
        if k in ("kind", "data", "scored", "projection", "shuffle", "threshold")
    }
    return head | {"grid": cells}


def cost(source: Source, settings: Settings, workers: int) -> dict[str, Any]:
    """What a search would take: runs from the plan, seconds from a few steps timed here."""
    problem = open_problem(source)
    plan = plan_for(problem, settings)
    seeds = len(plan.seeds)
    if plan.dims is not None:
        low = 2 + seeds + len(plan.dims) * (seeds + (len(plan.rates) - 1 if plan.rates else 4))
        high = low + 2 * len(plan.dims)
    else:
        low = 2 + seeds + (1 if plan.rates else 5) + 4 + 3 + 5 * seeds
        doublings = math.ceil(math.log2(max(plan.size / min(plan.size, search.GUESS[1]), 1)))
        high = low + doublings + 8 * seeds
    dim = plan.dims[0] if plan.dims else max(plan.least, min(plan.size // search.GUESS[0], search.GUESS[1]))
    one = _seconds_a_run(problem, dim)
    seconds = [round(count * one / workers, 1) for count in (low, high)]
    return {"kind": "plan", "D": problem.size, "dim": dim, "runs": {"low": low, "high": high}, "workers": workers,
            "seconds_per_run": round(one, 2), "seconds": {"low": seconds[0], "high": seconds[1]}}  # fmt: skip


def _seconds_a_run(problem: Problem, dim: int) -> float:
    """CPU seconds of a whole run, from the time of one step and of two more, or 19 where steps are fast."""

    def timed(steps: int) -> float:
        return problem.run(Job(dim, 0, 1e-3, steps / problem.steps)).seconds

    timed(1)  # compiles
    first = timed(1)
    more = min(20 if first < 1 else 3, problem.steps)
    if more == 1:
        return first
    step = max(timed(more) - first, 0.0) / (more - 1)
    return first + (problem.steps - 1) * step
