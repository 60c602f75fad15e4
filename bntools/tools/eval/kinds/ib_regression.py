"""Regressions through a bottleneck on rows that they were not trained on: error, and error under attack."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.tables import open_table
from bntools.core.errors import bad_input, usage
from bntools.core.information import bottleneck_regression
from bntools.core.information.bottleneck_regression import BottleneckRegression
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report: root mean squared error on the table of --data beside that of the training mean, and the curve.

    Of the table it was trained on, the rows held out are scored. Raises BnError (exit 3) where the table lacks a
    column, or a value.
    """
    if request.options:
        raise usage(f"a regression has no setting {sorted(request.options)[0]}", "leave out --set")
    if len(request.data) != 1:
        raise usage("a regression is scored on one table", "--data TABLE")
    model = bottleneck_regression.read(source)
    x, y = _rows(model, request.data[0])
    known = bottleneck_regression.digest_of_rows(x, y) == model.digest
    if known:
        x, y = x[model.held_out], y[model.held_out]
    with progress("scoring", 1) as advance:
        scores = bottleneck_regression.scores(model, x, y)
        advance(1)
    return {
        "kind": "eval", "model": source.label, "method": model.facts.get("method"), "beta": model.facts.get("beta"),
        "target": model.target, "rows": len(y), "held_out": known, **scores,
        "baseline": {"mean_rmse": float(np.sqrt(np.square(y - model.level).mean()))},
    }  # fmt: skip


def tables(report: dict[str, Any]) -> list[Any]:
    """What a person sees."""
    three = terminal.three
    rows = [["training mean", three(report["baseline"]["mean_rmse"]), ""]]
    for entry in report["fgsm"]:
        name = "RMSE" if entry["epsilon"] == 0 else f"RMSE, attack {entry['epsilon']:g}"
        rows.append([name, three(entry["mean"]), three(entry["se"])])
    which = "held-out rows" if report["held_out"] else "rows"
    return [terminal.table([f"{report['target']}, {report['rows']:,} {which}", "value", "± se"], rows)]


def _rows(model: BottleneckRegression, path: str) -> tuple[np.ndarray, np.ndarray]:
    with open_table(path) as table:
        missing = [name for name in (*model.names, model.target) if name not in table.names]
        if missing:
            raise bad_input(f"{path} has no column {missing[0]}", f"it has: {', '.join(table.names[:8])}")
        columns = [table.column(name) for name in (*model.names, model.target)]
    for name, column in zip((*model.names, model.target), columns, strict=True):
        if column.dtype.kind not in "fiub" or not np.isfinite(column.astype(np.float64)).all():
            raise bad_input(f"{path}: column {name} is not a number on every row", "leave those rows out")
    values = np.stack(columns, 1).astype(np.float64)
    if len(values) < 2:
        raise bad_input(f"{path} has {len(values)} rows", "2 or more")
    return values[:, :-1], values[:, -1]
