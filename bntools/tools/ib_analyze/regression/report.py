"""The report of a sweep: every run beside guessing the mean and least squares, and the one that is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.tools.ib_analyze.regression.design import Rows
from bntools.tools.ib_analyze.regression.settings import Regressing
from bntools.tools.ib_analyze.regression.train import Run


def report(rows: Rows, settings: Regressing, runs: list[Run]) -> dict[str, Any]:
    """Kind ib-regression-fit of bntools-ib-analyze(1)."""
    best = chosen(runs)
    return {
        "kind": "ib-regression-fit", "target": settings.target, "columns": len(rows.names), "dropped": rows.dropped,
        "rows": {"train": len(rows.train), "validation": len(rows.validation), "test": len(rows.test)},
        "norm": settings.norm, "kernel_width": settings.width or "median", "code": settings.code,
        "epochs": settings.epochs, "chosen": {"method": best.entry["method"], "beta": best.entry["beta"]},
        "runs": [run.entry for run in runs], "baseline": baseline(rows), "warnings": warnings(rows, runs),
    }  # fmt: skip


def chosen(runs: list[Run]) -> Run:
    """The run of CS-IB with the least error on the validation rows."""
    return min(
        (run for run in runs if run.entry["method"] == "cs-ib"), key=lambda run: run.entry["validation_rmse"]
    )


def baseline(rows: Rows) -> dict[str, float]:
    """Root mean squared error on the test rows of the training mean, and of least squares."""
    x, y = rows.x[rows.train], rows.y[rows.train]
    design = np.hstack([x, np.ones((len(x), 1))])
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    test = np.hstack([rows.x[rows.test], np.ones((len(rows.test), 1))])
    outcome = rows.y[rows.test]
    return {"mean_rmse": _root(outcome - y.mean()), "linear_rmse": _root(outcome - test @ weights)}


def warnings(rows: Rows, runs: list[Run]) -> list[str]:
    """Sentences a reader of the table should know."""
    best, plain, simple = chosen(runs).entry, runs[0].entry, baseline(rows)
    error, said = best["rmse"]["mean"], []
    if error >= plain["rmse"]["mean"]:
        said.append(
            f"CS-IB's error {error:.4g} is not below that of squared error, {plain['rmse']['mean']:.4g}"
        )
    if error >= simple["linear_rmse"]:
        said.append(f"least squares has an error of {simple['linear_rmse']:.4g}, no more than CS-IB's")
    return said


def _root(errors: np.ndarray) -> float:
    return float(np.sqrt(np.square(errors).mean()))
