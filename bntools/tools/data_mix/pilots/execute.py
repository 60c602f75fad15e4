"""Pilot runs, made one after the other: those of a part, those not yet kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bntools.core.errors import BnError, bad_input
from bntools.core.progress import Step
from bntools.core.work.shards import Shard
from bntools.tools.data_mix.pilots.heads import HEADS, Task, cross_entropy
from bntools.tools.data_mix.pilots.plan import Kept, Pilot
from bntools.tools.data_mix.pilots.read import Pool
from bntools.tools.data_mix.pilots.sources import draw, gathered

Train = Callable[[Pilot], dict[str, Any]]
"""Makes one run; returns its metric, kind and what else it tells."""


class HeadChoice(NamedTuple):
    """A built-in head: its name, its penalty (None: by cross-validation), and whether its error or loss is scored."""

    name: str = "logistic"
    penalty: float | None = None
    metric: str = "error"


def head_trainer(pool: Pool, choice: HeadChoice) -> Train:
    """Runs by a built-in head on the pool's sources."""
    sizes = [len(source) for source in pool.sources]

    def train(pilot: Pilot) -> dict[str, Any]:
        weights = np.array([pilot.weights[source.name] for source in pool.sources])
        drawn = draw(sizes, weights, pilot.n, pilot.seed)
        task = Task(gathered(pool.sources, drawn), pool.validation, pool.classes, choice.penalty, pilot.seed)
        scores = HEADS[choice.name](task)
        wrong = float((scores.argmax(1) != pool.validation.y).mean())
        value = wrong if choice.metric == "error" else cross_entropy(scores, pool.validation.y)
        trials = len(pool.validation.y)
        return {"metric": value, "kind": choice.metric, "trials": trials, "epochs": round(drawn.epochs, 4)}

    return train


def make(
    pilots: Sequence[Pilot],
    train: Train,
    kept: Kept,
    *,
    part: Shard | None,
    step: Step,
    allow_failed: bool = False,
) -> int:
    """Make the runs of a part that are not kept yet; returns how many are kept then. Raises what `train` raises.

    allow_failed: a run that fails is kept without a metric, and the others are made.
    """
    mine = range(len(pilots)) if part is None else part.of([pilot.n for pilot in pilots])
    for index in mine:
        pilot = pilots[index]
        if kept.get(pilot) is None:
            told = {"weights": dict(pilot.weights), "n": pilot.n, "seed": pilot.seed}
            try:
                kept.put(pilot, {**told, **train(pilot)})
            except BnError:
                if not allow_failed:
                    raise
                kept.put(pilot, {**told, "metric": None, "kind": "error"})
        step(1)
    return len(mine)


def records(pilots: Sequence[Pilot], kept: Kept) -> list[dict[str, Any]]:
    """The records of all pilots, in order. Raises BnError (exit 3) where some are missing."""
    done = [kept.get(pilot) for pilot in pilots]
    missing = sum(record is None for record in done)
    if missing:
        raise bad_input(
            f"{missing} of {len(done)} pilots are not made yet", "run the other parts: --shard I/N"
        )
    whole = [record for record in done if record is not None]
    kinds = [record["kind"] for record in whole if record["metric"] is not None]
    return [
        record if record["metric"] is not None else {**record, "kind": (kinds or ["error"])[0]}
        for record in whole
    ]
