"""The loss of a sparse regression on rows that it was not fitted to, beside guessing and the whole path."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.tables import Table, open_table
from bntools.core.errors import bad_input, usage
from bntools.core.progress import Progress
from bntools.core.report.values import four_digits
from bntools.tools.eval.kinds import Request

Floats = NDArray[np.float64]
FAMILIES = ("gaussian", "logistic", "poisson")


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report: half the mean deviance of the chosen step on the table of --data, with its standard error.

    Option: step, a number of the path from 0 on in place of the step that was chosen. Raises BnError (exit 3) where
    the table lacks a column that has a coefficient, or has fewer than 2 rows where all of them are known.
    """
    if len(request.data) != 1:
        raise usage("a path is scored on one table", "--data TABLE")
    coefficients, intercepts, names = _path(source)
    step = _step(source, request, len(intercepts))
    used = np.flatnonzero((coefficients != 0).any(0))
    with open_table(request.data[0]) as table, progress("scoring", 1) as advance:
        x, y = _rows(source, table, [names[i] for i in used])
        family = str(source.report["family"])
        losses = np.stack([
            half_deviances(family, intercepts[k] + x @ coefficients[k, used], y) for k in range(len(intercepts))
        ])  # fmt: skip
        advance(1)
    null = half_deviances(family, np.full(len(y), _link(family, float(np.mean(y)))), y)
    mean = losses.mean(1)
    report = {
        "kind": "eval", "model": source.label, "target": source.report["target"], "family": family, "rows": len(y),
        "step": step, "columns": int((coefficients[step] != 0).sum()),
        "loss": {"mean": four_digits(mean[step]), "se": four_digits(losses[step].std(ddof=1) / len(y) ** 0.5)},
        "null_loss": four_digits(null.mean()), "explained": four_digits(1 - mean[step] / null.mean()),
        "best": {"step": int(mean.argmin()), "loss": four_digits(mean.min())},
    }  # fmt: skip
    if family == "logistic":
        right = (intercepts[step] + x @ coefficients[step, used] > 0) == (y > 0)
        report["accuracy"] = four_digits(right.mean())
        report["largest_class"] = four_digits(max(y.mean(), 1 - y.mean()))
    return report


def tables(report: dict[str, Any]) -> list[Any]:
    """What a person sees."""
    loss = report["loss"]
    rows = [
        ["rows", f"{report['rows']:,}"],
        ["columns of the step", f"{report['columns']:,}"],
        ["loss", f"{terminal.three(loss['mean'])} ± {terminal.three(loss['se'])}"],
        ["of guessing the mean", terminal.three(report["null_loss"])],
        ["explained", terminal.three(report["explained"])],
        ["best step of the path", f"{report['best']['step']}, loss {terminal.three(report['best']['loss'])}"],
    ]
    if "accuracy" in report:
        rows.append(
            ["accuracy", f"{terminal.three(report['accuracy'])}, largest class {report['largest_class']:.3g}"]
        )
    return [terminal.facts(f"{report['target']}, {report['family']}", rows)]


def half_deviances(family: str, predictor: Floats, y: Floats) -> Floats:
    """Half the deviance of each row [n], the loss that sparse-fit holds out: squares, logistic or Poisson.

    The Poisson loss leaves out the terms of y alone.
    """
    if family == "gaussian":
        return 0.5 * np.square(y - predictor)
    if family == "logistic":
        return np.logaddexp(0, predictor) - y * predictor
    return np.exp(np.minimum(predictor, 700)) - y * predictor


def _link(family: str, mean: float) -> float:
    if family == "gaussian":
        return mean
    if family == "logistic":
        mean = min(max(mean, 1e-12), 1 - 1e-12)
        return float(np.log(mean / (1 - mean)))
    return float(np.log(max(mean, 1e-12)))


def _path(source: Artifact) -> tuple[Floats, Floats, list[str]]:
    """Coefficients [k, p], intercepts [k] and names [p]. Raises BnError (exit 3) for what is no path."""
    shapes = {
        name: source.entries[name].shape for name in ("coefficients", "intercepts") if name in source.entries
    }
    try:
        names = json.loads(source.files["columns.json"])
    except (KeyError, ValueError):
        names = None
    fits = (
        len(shapes) == 2
        and isinstance(names, list)
        and shapes["coefficients"] == (*shapes["intercepts"], len(names))
        and source.report.get("family") in FAMILIES
        and isinstance(source.report.get("target"), str)
    )
    if not fits or names is None:
        raise bad_input(f"{source.label} is no whole path", "bntools sparse-fit TABLE --target Y -o FILE")
    coefficients, intercepts = (source.tensor(name).double().numpy() for name in shapes)
    return coefficients, intercepts, [str(name) for name in names]


def _step(source: Artifact, request: Request, steps: int) -> int:
    unknown = set(request.options) - {"step"}
    if unknown:
        raise usage(f"a path has no setting {sorted(unknown)[0]}", "--set step=N")
    chosen = request.options.get("step")
    if chosen is None:
        lambdas = source.tensor("lambda").double().numpy()
        return int(np.abs(lambdas - float(source.report.get("lambda", lambdas[-1]))).argmin())
    if not isinstance(chosen, int) or not 0 <= chosen < steps:
        raise usage(f"--set step={chosen}: the path has {steps} steps", f"--set step={steps - 1}")
    return chosen


def _rows(source: Artifact, table: Table, names: list[str]) -> tuple[Floats, Floats]:
    """x [n, p] and y [n] where all of them are known; y is 1 for the second class of a logistic fit."""
    column, classes = table.column(source.report["target"]), source.report.get("classes") or []
    if source.report["family"] == "logistic":
        text = [str(value) for value in column.tolist()]
        named = table.classes.get(source.report["target"])
        text = [
            named[int(float(value))] if named and value.replace(".", "").isdigit() else value
            for value in text
        ]
        strangers = sorted({value for value in text if value not in classes and value not in ("", "nan")})
        if strangers:
            raise bad_input(
                f"{table.label} has class {strangers[0]}, the path {' and '.join(map(str, classes))}"
            )
        y = np.array([classes.index(value) if value in classes else np.nan for value in text], np.float64)
    elif column.dtype.kind == "O":
        raise bad_input(f"target {source.report['target']} is text")
    else:
        y = column.astype(np.float64)
    x = (
        np.stack([table.column(name).astype(np.float64) for name in names], 1)
        if names
        else np.empty((len(y), 0))
    )
    known = np.isfinite(y) & np.isfinite(x).all(1)
    if known.sum() < 2:
        raise bad_input(f"{table.label} has {known.sum()} rows where all columns are known", "2 or more")
    return x[known], y[known]
