"""The 40 tasks: error of the figure, and of Kraskov's plain estimate and linear correlation beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bntools.core.information.estimate import mutual_information
from bntools.core.information.estimators import DEFAULT, Estimation, linear, standardized
from bntools.kernels.information.nearest_neighbour import kraskov
from bntools.tools.mi.tasks import tasks


def bench(
    rows: int = 10_000,
    seeds: int = 1,
    settings: Estimation = DEFAULT,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Each task drawn `seeds` times: figure, truth, error; the mean absolute error over all, in nats."""
    entries = []
    for number, task in enumerate(tasks()):
        for seed in range(settings.seed, settings.seed + seeds):
            x, y = task.draw(rows, np.random.default_rng([seed, number]))
            started = time.process_time()
            figure = mutual_information(x, y, settings, labels=False)
            seconds = time.process_time() - started
            if "ksg" in figure["estimators"]:
                plain = figure["estimators"]["ksg"]
            else:
                plain = kraskov(standardized(x), standardized(y), settings.k)
            entries.append({
                "task": task.name, "seed": seed, "truth": task.truth, "ksg": plain, "gaussian": linear(x, y),
                "seconds": seconds, "covered": figure["low"] <= task.truth <= figure["high"],
                **{key: figure[key] for key in ("value", "low", "high", "cap", "estimator", "flags")},
            })  # fmt: skip
            advance(1)

    def error(key: str) -> float:
        return float(np.mean([abs(entry[key] - entry["truth"]) for entry in entries]))

    return {
        "kind": "mi-bench", "rows": rows, "seeds": seeds, "units": "nats",
        "mean_absolute_error": {"value": error("value"), "ksg": error("ksg"), "gaussian": error("gaussian")},
        "above_cap": sum(entry["value"] > entry["cap"] for entry in entries),
        "covered": float(np.mean([entry["covered"] for entry in entries])),
        "tasks": entries,
    }  # fmt: skip
