"""Embedding tables on the rows of a table: AUC, log loss, calibration or RMSE, and how many values were seen before."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.tables import open_table
from bntools.core.errors import bad_input, usage
from bntools.core.methods.embedding import scores, stored
from bntools.core.methods.embedding.decode import outputs
from bntools.core.methods.embedding.inputs import columns_of, outcome
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request

_OPTIONS = ("target", "at_least")


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report of kind embedding-eval. request.data: one table; options: target, at_least."""
    unknown = [name for name in request.options if name not in _OPTIONS]
    if unknown:
        raise usage(f"--set {unknown[0]}: no setting of embedding tables", f"one of {', '.join(_OPTIONS)}")
    table = stored.read(source)
    if not table.head:
        raise usage(
            f"{source.label} is a table without a head: it predicts nothing", "score the model it is from"
        )
    if len(request.data) != 1:
        raise usage("embedding tables are scored on one table of rows", "--data test.csv")
    target = str(request.options.get("target", table.facts.get("target", "")))
    with open_table(request.data[0]) as rows:
        missing = [name for name in (*table.names, target) if name not in rows.names]
        if missing:
            raise bad_input(
                f"{request.data[0]} has no column {missing[0]}", f"it has: {', '.join(rows.names[:12])}"
            )
        columns, _ = columns_of(rows, table.names, drop=False)
        at_least, task = request.options.get("at_least", table.facts["at_least"]), table.facts["task"]
        y, _ = outcome(rows.column(target), target, None if at_least is None else float(at_least), task)
    with progress("scoring", len(y)) as step:
        out = outputs(table, columns)
        step(len(y))
    size = table.nbytes()
    return {
        "kind": "embedding-eval", "method": table.facts["method"], "task": task, "rows": len(y),
        "metrics": scores.metrics(y, out, task), "baseline": _baseline(y, task),
        "unseen": {name: _unseen(table, t, columns[name]) for t, name in enumerate(table.names)},
        "bytes": {k: size[k] for k in ("embedding", "index", "vocab", "head")},
    }  # fmt: skip


def _baseline(y: Any, task: str) -> dict[str, float]:
    """What the mean outcome scores."""
    if task == "regression":
        return {"rmse": float(y.std())}
    rate = float(np.clip(y.mean(), 1e-9, 1 - 1e-9))
    return {"logloss": float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))), "auc": 0.5}


def _unseen(table: stored.StoredTables, t: int, column: Any) -> float | None:
    """Share of rows whose value training never saw; None where values are hashed and none is known."""
    from bntools.core.methods.embedding.fields import distinct

    values = table.vocab[t]
    if values is None:
        return None
    texts, index = distinct(column)
    known = set(values)
    return float(np.array([text not in known for text in texts])[index].mean())


def tables(report: dict[str, Any]) -> list[Any]:
    """The scores beside those of the mean outcome, and the share of unseen values a field."""
    base, rows = report["baseline"], []
    for name, value in report["metrics"].items():
        shown = (
            f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
            if name == "auc"
            else f"{value:.4f}"
        )
        rows.append([name.replace("_", " "), f"{base[name]:.4f}" if name in base else "-", shown])
    unseen = [[name, "hashed" if x is None else f"{100 * x:.1f}"] for name, x in report["unseen"].items()]
    return [
        terminal.table([f"{report['rows']:,} rows", "mean outcome", report["method"]], rows),
        terminal.table(["field", "unseen values (% of rows)"], unseen),
    ]
