"""One training run: what is asked for and what came of it."""

from __future__ import annotations

import hashlib
import json
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


def from_record(found: dict[str, Any], point: Any) -> Run:
    """The run that `record` described. Raises KeyError or TypeError on anything else."""
    job = Job(
        found["dim"],
        found["seed"],
        found["lr"],
        found["share"],
        found["target"],
        found["start"],
        found["phase"],
    )
    curve = [(float(a), float(b)) for a, b in found["curve"]]
    outcome = Outcome(
        found["score"], found["validation"], found["floor"], curve, found["steps"], found["seconds"],
        found["stopped"], found["floor_test"], point, found.get("loss"),
    )  # fmt: skip
    return Run(job, outcome, found["key"])
