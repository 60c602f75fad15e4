"""One training run: what is asked for and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """Train once. dim None: all D parameters, no projection. share: of the full number of steps.

    target: the validation score below whose reach the run may be given up. start: key of the run of half the
    dimension whose end point this one starts from.
    """

    dim: int | None
    seed: int
    lr: float
    share: float = 1.0
    target: float | None = None
    start: str | None = None
    phase: str = ""

    def key(self, problem: str) -> str:
        """Name of the run in a ledger: the same for the same problem and the same training, whatever for."""
        parts = [problem, self.dim, self.seed, f"{self.lr:.9g}", f"{self.share:.6g}", self.start]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """The end of a run. score: on test data, higher is better; validation: the same on held-out data.

    seconds: of CPU. stopped: given up early as hopeless, its scores are those of that moment. floor: the validation
    score of theta_0; floor_test: the test score, of baselines that a target is measured from. curve: (share of the
    steps, validation score). point: z at the end [dim], None for all parameters. loss: on the held-out data, where the
    score is another number: of equal scores the lower one is the better.
    """

    score: float
    validation: float
    floor: float
    curve: list[tuple[float, float]]
    steps: int
    seconds: float
    stopped: bool = False
    floor_test: float | None = None
    point: Any = field(default=None, repr=False, compare=False)
    loss: float | None = None


@dataclass(frozen=True)
class Run:
    """A job and its outcome."""

    job: Job
    outcome: Outcome
    key: str

    def record(self) -> dict[str, Any]:
        """What a report and a ledger say of the run."""
        job, out = self.job, self.outcome
        return {
            "key": self.key, "phase": job.phase, "dim": job.dim, "seed": job.seed, "lr": job.lr, "share": job.share,
            "start": job.start, "score": out.score, "validation": out.validation, "floor": out.floor,
            "floor_test": out.floor_test,
            "curve": [list(pair) for pair in out.curve], "steps": out.steps, "seconds": round(out.seconds, 3),
            "stopped": out.stopped, "target": job.target, **({} if out.loss is None else {"loss": out.loss}),
        }  # fmt: skip


def from_record(record: dict[str, Any], point: Any) -> Run:
    """The run that `record` described. Raises KeyError or TypeError on anything else."""
    job = Job(
        record["dim"],
        record["seed"],
        record["lr"],
        record["share"],
        record["target"],
        record["start"],
        record["phase"],
    )
    curve = [(float(a), float(b)) for a, b in record["curve"]]
    outcome = Outcome(
        record["score"], record["validation"], record["floor"], curve, record["steps"], record["seconds"],
        record["stopped"], record["floor_test"], point, record.get("loss"),
    )  # fmt: skip
    return Run(job, outcome, record["key"])


def best_run(runs: Sequence[Run], guessing: tuple[float, int] | None = None) -> Run:
    """The best run; where all scores tie, that of the least loss; of equal ones that with the middle learning rate.

    guessing: the share of the largest class and the rows it was counted on, where scores are accuracies.
    """
    if tied(runs, guessing) and any(_loss(run) < math.inf for run in runs):
        return min(runs, key=_loss)
    top = max(map(_rank, runs))
    equal = sorted((run for run in runs if _rank(run) == top), key=lambda run: run.job.lr)
    return equal[len(equal) // 2]


def tied(runs: Sequence[Run], guessing: tuple[float, int] | None) -> bool:
    """Whether no score tells runs apart: all are equal, or no better than guessing within two standard errors."""
    scores = {validation(run) for run in runs}
    if guessing is None:
        return len(scores) == 1
    share, rows = guessing
    return len(scores) == 1 or max(scores) <= share + 2 * math.sqrt(share * (1 - share) / rows)


def validation(run: Run) -> float:
    """The score on held-out data; of a run that fell apart, less than any."""
    value = run.outcome.validation
    return value if math.isfinite(value) else -math.inf


def _rank(run: Run) -> tuple[float, float]:
    return validation(run), -_loss(run)


def _loss(run: Run) -> float:
    loss = run.outcome.loss
    return loss if loss is not None and math.isfinite(loss) else math.inf
