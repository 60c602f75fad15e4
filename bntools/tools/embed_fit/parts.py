"""Parts of a sweep: the runs of some methods on some splits, written with --shard and joined with --gather."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from bntools.core.progress import Progress
from bntools.core.work import array_parts
from bntools.core.work.shards import Shard
from bntools.tools.embed_fit.sweep import Run, Sweep, units

KIND = "embed-fit-part"


def identity(sweep: Sweep) -> dict[str, Any]:
    """What all parts must share: settings, rows and columns."""
    y = sweep.data.y
    return {"settings": json.loads(json.dumps(asdict(sweep.settings))), "rows": len(y), "sum": float(y.sum()),
            "columns": list(sweep.data.columns)}  # fmt: skip


def write(sweep: Sweep, shard: Shard, place: tuple[str, bool], progress: Progress) -> dict[str, Any] | None:
    """Fit the units of a part; returns the manifest."""
    work = units(sweep.settings)
    chosen = shard.of([1] * len(work))
    runs: list[Run] = []
    with progress("fitting", len(chosen)) as step:
        for index in chosen:
            runs += sweep.run(work[index], step)
    facts = [{"method": r.method, "budget": r.budget, "split": r.split, "facts": r.facts} for r in runs]
    arrays: dict[str, Any] = {f"output{i}": r.output for i, r in enumerate(runs)}
    arrays["runs"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    return array_parts.write(place[0], KIND, shard, identity=identity(sweep), arrays=arrays, force=place[1])


def read(sweep: Sweep, paths: Iterable[str]) -> list[Run]:
    """The runs of all parts, in the order of one process."""
    runs = []
    for part in array_parts.read(paths, KIND, identity(sweep)):
        told = json.loads(bytes(part["runs"]))
        runs += [
            Run(one["method"], one["budget"], one["split"], part[f"output{i}"], one["facts"])
            for i, one in enumerate(told)
        ]
    return runs
