"""The report of a sweep: each method at each budget against the full table on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.embedding import scores
from bntools.core.methods.embedding.shares import budget_name
from bntools.core.progress import Progress, no_progress
from bntools.tools.embed_fit.methods.plain import full_size
from bntools.tools.embed_fit.problem import Data, Problem
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.sweep import REFERENCE, SMALL, Run, Sweep, small_width, units


def embed_fit(
    data: Data, settings: Settings, progress: Progress = no_progress
) -> tuple[dict[str, Any], list[Run]]:
    """Fit everything the settings name: the report of bntools-embed-fit(1), and the runs with what was fitted."""
    sweep, runs = Sweep(data, settings), []
    work = units(settings)
    with progress("fitting", len(work)) as step:
        for unit in work:
            runs += sweep.run(unit, step)
    return report(sweep, runs), runs


def difference(y: NDArray[Any], a: NDArray[Any], b: NDArray[Any], task: str) -> dict[str, float]:
    """How much better a is than b on the same rows, with the error: in AUC, or in RMSE less."""
    if task == "binary":
        return scores.auc_difference(y, a, b)
    first, second = np.square(a - y), np.square(b - y)
    scale = float(np.sqrt(first.mean()) + np.sqrt(second.mean()))
    gap = second - first
    return {"mean": float(gap.mean()) / scale, "se": float(gap.std(ddof=1) / np.sqrt(len(gap))) / scale}


def _joint(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Over splits: the mean, and the error of it by how the splits differ; of one split its own."""
    if len(parts) == 1:
        return parts[0]
    values = np.array([p["mean"] for p in parts])
    return {"mean": float(values.mean()), "se": float(values.std(ddof=1) / np.sqrt(len(values)))}


def report(sweep: Sweep, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything JSON says. Runs of one method and budget are joined over the splits."""
    settings, task = sweep.settings, sweep.data.task
    tests = {run.split: run for run in runs if run.method == REFERENCE}
    problem, ys = None, {}
    for split in sorted(tests):
        current = sweep.problem(split)
        problem, ys[split] = problem or current, current.test.y
    assert problem is not None
    grouped: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.method, run.budget), []).append(run)
    rows = [_row(group, tests, ys, task) for group in grouped.values()]
    results = [r for r in rows if r["method"] not in (REFERENCE, SMALL)]
    reference = next(r for r in rows if r["method"] == REFERENCE)
    small = next((r for r in rows if r["method"] == SMALL), None)
    _judge(results, small)
    reached = {(r["method"], r["budget"]) for r in results}
    return {
        "kind": "embed-fit", "task": task, "model": settings.model, "split": settings.split, "splits": settings.splits,
        "bits": settings.bits, "measure": "auc" if task == "binary" else "rmse",
        "rows": {"train": len(problem.train.y), "valid": len(problem.valid.y), "test": len(problem.test.y)},
        "fields": _fields(problem),
        "full": {"d": settings.dim, "numbers": full_size(problem, settings), **_short(reference)},
        "baseline": {"small_full": small and {"d": small_width(settings), **_short(small)}},
        "results": results,
        "unreachable": [{"method": m, "budget": b} for m in settings.methods for b in settings.budgets
                        if (m, b) not in reached],
        "notes": sweep.data.notes,
    }  # fmt: skip


def _fields(problem: Problem) -> list[dict[str, Any]]:
    return [
        {"name": f.name, "values": len(f.values), "coverage": share}
        for f, share in zip(problem.fields, problem.coverage(), strict=True)
    ]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: row[key]
        for key in ("parameters", "bytes", "share", "metrics", "change", "prior", "collisions")
        if key in row
    }


def _row(group: Sequence[Run], tests: dict[int, Run], ys: dict[int, Any], task: str) -> dict[str, Any]:
    first = group[0]
    numbers = [run.facts["numbers"] for run in group]
    metrics = [scores.metrics(ys[run.split], run.output, task) for run in group]
    change = _joint([difference(ys[r.split], r.output, tests[r.split].output, task) for r in group])
    more = {
        k: first.facts[k]
        for k in ("collisions", "d", "widths", "groups", "tables_only", "shared")
        if k in first.facts
    }
    return {
        "method": first.method, "budget": first.budget, "budget_name": budget_name(first.budget),
        "parameters": {"embedding": round(float(np.mean(numbers))), "head": first.facts["head"]},
        "share": float(np.mean([r.facts["share"] for r in group])),
        "bytes": {k: round(float(np.mean([r.facts["bytes"][k] for r in group]))) for k in first.facts["bytes"]},
        "metrics": _mean_metrics(metrics), "change": change,
        "changes": [difference(ys[r.split], r.output, tests[r.split].output, task)["mean"] for r in group],
        "prior": first.facts["prior"], **more,
    }  # fmt: skip


def _mean_metrics(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over splits; the interval of AUC from the errors of the splits, as if these were independent."""
    result: dict[str, Any] = {}
    for key in parts[0]:
        if key != "auc":
            result[key] = float(np.mean([p[key] for p in parts]))
            continue
        value = float(np.mean([p[key]["value"] for p in parts]))
        half = float(np.mean([p[key]["value"] - p[key]["low"] for p in parts])) / np.sqrt(len(parts))
        result[key] = {"value": value, "low": value - half, "high": value + half}
    return result


def _judge(results: list[dict[str, Any]], small: dict[str, Any] | None) -> None:
    """What is on the Pareto front by bytes, below the small full table, and not over hashing at its budget."""

    def size(row: dict[str, Any]) -> float:
        return row["bytes"]["embedding"] + row["bytes"]["index"]

    plain = {row["budget"]: row for row in results if row["method"] == "hash"}
    for row in results:
        value = row["change"]["mean"]
        row["pareto"] = not any(
            size(o) <= size(row) and o["change"]["mean"] >= value
            and (size(o) < size(row) or o["change"]["mean"] > value) for o in results
        )  # fmt: skip
        row["below_small_full"] = bool(small and size(row) >= size(small) and value < small["change"]["mean"])
        hashed = plain.get(row["budget"])
        if hashed is not None and row is not hashed:
            row["over_hash"] = value > hashed["change"]["mean"]
