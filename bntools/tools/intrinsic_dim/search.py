"""The search: baseline, bracket, bisection, confirmation. It asks for runs and knows nothing of how they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bntools.tools.intrinsic_dim import fit, ranking
from bntools.tools.intrinsic_dim.fit import Curve, Interval
from bntools.tools.intrinsic_dim.runs import Job, Run

Execute = Callable[[Sequence[Job]], list[Run]]

GUESS = (256, 1000)
"""The bracket starts at D / 256, but at no more than this."""
RATES = (0.25, 1.0, 4.0)
"""Learning rates first tried, relative to the guess; the neighbours of the best one, a factor 2 away, come after."""
MOST_RATES = 9
"""Learning rates tried at one dimension, at most; twice as many while all scores tie, as they do where nothing is
learned yet, and only the loss tells the way."""
BASE_RATES = (0.3, 1.0, 3.0)
"""The same for the baseline; going on in a direction while its last one is best."""
SPREAD = (0.7, 0.85, 1.0, 1.2, 1.4)
"""Dimensions of the confirmation, relative to the estimate."""
BEYOND = (1.25, 1.6, 2.0)
"""Further ones, relative to the largest tried, while nothing bounds the estimate from above."""
ROUNDS = 4
"""How often the confirmation may move or widen its dimensions."""


@dataclass(frozen=True)
class Plan:
    """What to search for. threshold: share of the baseline. tolerance: of the bisection. width: of the interval.

    seeds: of the runs; the first one leads the search. rates: learning rates, None to search for them.
    dims: dimensions to measure instead of searching. warm: start from the run of half the dimension where that nests.
    guessing: the share of the largest class in the test data and their number of rows, where the score is an accuracy.
    """

    size: int
    base_rate: float
    spans_from_floor: bool
    threshold: float = 0.9
    tolerance: float = 0.1
    width: float = 1.4
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] | None = None
    dims: tuple[int, ...] | None = None
    warm: bool = True
    least: int = 1
    most: int | None = None
    guessing: tuple[float, int] | None = None


@dataclass
class Found:
    """What a search found. Runs are all that were made; rate is the learning rate at each dimension."""

    interval: Interval
    target: float
    curve: Curve
    baseline: list[Run]
    runs: list[Run]
    rate: dict[int, float] = field(default_factory=dict)
    reached: bool = True


class Search:
    """One search over one problem. Every choice is made on validation scores, the result on test scores."""

    def __init__(self, plan: Plan, execute: Execute) -> None:
        self.plan = plan
        self._execute = execute
        self.runs: list[Run] = []
        self.rates: dict[int, float] = {}
        self.target: float | None = None
        self.base_rate = plan.base_rate
        self._baseline: list[Run] = []
        self._tuned: list[int] = []

    def __call__(self) -> Found:
        """Do it all."""
        baseline = self.baseline()
        if self.plan.dims is not None:
            for dim in self.plan.dims:
                self.measure(dim)
            return self.found(baseline)
        low, high = self.bracket()
        if high is None:
            self.confirm([low] if low else [self.plan.least])
            return self.found(baseline)
        low, high = self.bisect(low, high)
        self.settle(low, high)
        return self.found(baseline)

    def baseline(self) -> list[Run]:
        """Train all parameters: rates with the first seed, the best one with the others."""
        plan = self.plan
        tried = [plan.base_rate * factor for factor in BASE_RATES]
        first = self._ask(Job(None, plan.seeds[0], rate, phase="baseline") for rate in tried)
        while (best := ranking.best(first)).job.lr in (min(tried), max(tried)) and len(tried) < 7:
            step = BASE_RATES[-1] if best.job.lr == max(tried) else BASE_RATES[0]
            tried.append(best.job.lr * step)
            first += self._ask([Job(None, plan.seeds[0], tried[-1], phase="baseline")])
        rest = self._ask(Job(None, seed, best.job.lr, phase="baseline") for seed in plan.seeds[1:])
        self.base_rate = best.job.lr
        runs = self._baseline = [best, *rest]
        mean = sum(map(ranking.validation, runs)) / len(runs)
        self.target = fit.aim(mean, plan.threshold, best.outcome.floor if plan.spans_from_floor else None)
        return runs

    def guess(self, dim: int) -> float:
        """The rate at which d numbers move theta as far as the baseline's rate does: columns have norm one."""
        if self.rates and self.plan.dims is None:  # parts of a list are measured apart and must agree
            near = min(self.rates, key=lambda known: abs(math.log(known / dim)))
            return self.rates[near] * math.sqrt(near / dim)
        rate = self.base_rate if self.plan.dims is None else self.plan.base_rate
        return rate * math.sqrt(self.plan.size / dim)

    def tune(self, dim: int, phase: str, rates: Sequence[float] | None = None) -> Run:
        """The best run of the first seed over learning rates: a list asked for, or `rates` (else RATES around the
        guess) and then the neighbours of the best one, until it lies between two that are worse.
        """
        seed, guess, fixed = self.plan.seeds[0], self.guess(dim), self.plan.rates
        tried = list(fixed or rates or [guess * factor for factor in RATES])
        runs = self._ask(Job(dim, seed, rate, target=self.target, phase=phase) for rate in tried)
        best = self._best(runs)
        while not fixed and len(tried) < MOST_RATES * (2 if self._tied(runs) else 1):
            step = 4.0 if self._tied(runs) and best.job.lr in (min(tried), max(tried)) else 2.0
            near = [best.job.lr * factor for factor in (1 / step, step)]
            fresh = [rate for rate in near if all(abs(rate / known - 1) > 1e-6 for known in tried)]
            if not fresh:
                break
            tried += fresh
            runs += self._ask(Job(dim, seed, rate, target=self.target, phase=phase) for rate in fresh)
            best = self._best(runs)
        self.rates[dim] = best.job.lr
        self._tuned.append(dim)
        return best

    def _best(self, runs: Sequence[Run]) -> Run:
        return ranking.best(runs, self.plan.guessing)

    def _tied(self, runs: Sequence[Run]) -> bool:
        return ranking.tied(runs, self.plan.guessing)

    def bracket(self) -> tuple[int | None, int | None]:
        """Double or halve from the guess until one dimension is below the target and the next one is not.

        Going up, a run starts where that of half the dimension ended if the subspaces nest, for half the steps; what it
        reaches only brackets, the confirmation starts from nothing.
        """
        most = min(self.plan.most or self.plan.size, self.plan.size)
        dim = min(max(self.plan.least, min(self.plan.size // GUESS[0], GUESS[1])), most)
        run = self.tune(dim, "rate")
        if self._reaches(run):
            while self._reaches(run):
                high = dim
                if dim == self.plan.least:
                    return None, high
                dim = max(dim // 2, self.plan.least)
                run = self._one(dim, "bracket")
            return dim, high
        while not self._reaches(run):
            low = dim
            if dim == most:
                return low, None
            dim = min(2 * dim, most)
            run = self._wider(run, dim)
        return low, dim

    def _wider(self, before: Run, dim: int) -> Run:
        rate = self.guess(dim)
        if self._far(dim):
            return self.tune(dim, "rate", self._around(dim))
        job = Job(dim, self.plan.seeds[0], rate, target=self.target, phase="bracket")
        if (
            self.plan.warm
            and before.job.dim
            and dim == 2 * before.job.dim
            and before.outcome.point is not None
        ):
            job = Job(dim, job.seed, rate, 0.5, self.target, before.key, "warm")
        return self._keep(job)

    def _far(self, dim: int) -> bool:
        """Whether the last learning rate was searched for at dimensions a factor 4 away: then it is no guide."""
        return not self.plan.rates and all(max(dim / known, known / dim) >= 4 for known in self._tuned)

    def _one(self, dim: int, phase: str) -> Run:
        if self._far(dim):
            return self.tune(dim, "rate", self._around(dim))
        return self._keep(Job(dim, self.plan.seeds[0], self.guess(dim), target=self.target, phase=phase))

    def _keep(self, job: Job) -> Run:
        (run,) = self._ask([job])
        assert job.dim is not None
        self.rates.setdefault(job.dim, job.lr)
        return run

    def bisect(self, low: int | None, high: int) -> tuple[int | None, int]:
        """Halve the bracket in log d until it is narrower than twice the tolerance."""
        while low is not None and high / low > (1 + self.plan.tolerance) ** 2 and high - low > 1:
            middle = round(math.sqrt(low * high))
            if middle in (low, high):
                break
            if self._reaches(self._one(middle, "bisect")):
                high = middle
            else:
                low = middle
        return low, high

    def settle(self, low: int | None, high: int) -> None:
        """All seeds at dimensions around the estimate, at a rate searched for there, until the interval is narrow."""
        centre = float(high) if low is None else math.sqrt(low * high)
        middle = max(round(centre), self.plan.least)
        self.rates.pop(middle, None)
        rate = self.tune(middle, "rate", None if self.plan.rates else self._around(middle)).job.lr
        self.rates = {middle: rate}
        spread: Iterable[float] = SPREAD
        for _ in range(ROUNDS):
            self.confirm(sorted({self._within(round(centre * factor)) for factor in spread}))
            interval, _, curve = self._estimate()
            if interval.value is None:
                centre, spread = curve.dims[-1] * 2.0, SPREAD
                continue
            if interval.high is None and curve.dims[-1] < self._within(self.plan.size):
                centre, spread = curve.dims[-1], BEYOND
                continue
            narrow = interval.low and interval.high and interval.high <= self.plan.width * interval.low
            inside = curve.dims[0] < interval.value < curve.dims[-1] or interval.value <= self.plan.least
            if narrow and inside:
                return
            centre, spread = interval.value, SPREAD if not inside else (0.77, 0.92, 1.09, 1.3)

    def _around(self, dim: int) -> list[float]:
        return [self.guess(dim) * factor for factor in (0.5, 1.0, 2.0)]

    def _within(self, dim: int) -> int:
        return min(max(dim, self.plan.least), min(self.plan.most or self.plan.size, self.plan.size))

    def confirm(self, dims: Sequence[int]) -> None:
        """Whole runs from nothing, all seeds, never given up."""
        jobs = [Job(d, seed, self.guess(d), phase="confirm") for d in dims for seed in self.plan.seeds]
        for job in jobs:
            assert job.dim is not None
            self.rates.setdefault(job.dim, job.lr)
        self._ask(jobs)

    def part(self, index: int, count: int) -> None:
        """Every count-th of the units of work, from number index on: the baseline, then each dimension of a list."""
        assert self.plan.dims is not None
        for dim in [None, *self.plan.dims][index::count]:
            if dim is None:
                self.baseline()
                self.target = None  # the other parts do not know it: nothing is given up
            else:
                self.measure(dim)

    def measure(self, dim: int) -> None:
        """One dimension of a given list: the rate with the first seed, then all seeds."""
        rate = self.tune(dim, "rate").job.lr
        self._ask(Job(dim, seed, rate, phase="confirm") for seed in self.plan.seeds)

    def counted(self) -> list[Run]:
        """The runs the curve is fitted to: whole ones from nothing, of all seeds, at the rate of their dimension."""
        return list({run.key: run for run in self.runs if run.job.phase == "confirm"}.values())

    def _estimate(self) -> tuple[Interval, float, Curve]:
        return estimate(self.counted(), self._baseline, self.plan)

    def found(self, baseline: list[Run]) -> Found:
        interval, target, curve = estimate(self.counted(), baseline, self.plan)
        return Found(
            interval, target, curve, baseline, self.runs, dict(self.rates), interval.value is not None
        )

    def _reaches(self, run: Run) -> bool:
        assert self.target is not None
        return not run.outcome.stopped and run.outcome.validation >= self.target

    def _ask(self, jobs: Iterable[Job]) -> list[Run]:
        runs = self._execute(list(jobs))
        self.runs += runs
        return runs


def estimate(runs: Sequence[Run], baseline: Sequence[Run], plan: Plan) -> tuple[Interval, float, Curve]:
    """The dimension from test scores of whole runs."""
    floor = baseline[0].outcome.floor_test if plan.spans_from_floor else None
    dims = [run.job.dim or 0 for run in runs]
    scores = [run.outcome.score for run in runs]
    base = [run.outcome.score for run in baseline]
    return fit.dimension(dims, scores, base, plan.threshold, floor, least=plan.least)
