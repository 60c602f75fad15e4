"""The whole fit: path, criteria, the chosen step in the units of the table, and the lasso as baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.core.progress import Progress
from bntools.tools.sparse_fit.design import Design
from bntools.tools.sparse_fit.path import (
    FittedPath,
    Validation,
    cross_validate,
    extended_bic,
    fit_path,
    lambda_grid,
    null_loss,
)
from bntools.tools.sparse_fit.settings import Settings

KIND = "sparse-fit"
Floats = NDArray[np.float64]


class Fit(NamedTuple):
    """A path with its criteria [k], and the steps that extended BIC and cross-validation choose."""

    path: FittedPath
    bic: Floats
    validation: Validation
    by_bic: int
    by_validation: int

    def step(self, criterion: str) -> int:
        return self.by_bic if criterion == "ebic" else self.by_validation


def sparse_fit(design: Design, settings: Settings, progress: Progress) -> dict[str, Fit]:
    """The fit with the penalty asked for, and with the lasso on the same penalties and folds."""
    if settings.solver == "ag" and design.family != "gaussian":
        raise usage(f"--solver ag fits gaussian outcomes, and this is {design.family}", "--solver cd")
    if settings.folds > len(design.y) // 2:
        raise usage(
            f"--folds {settings.folds} for {len(design.y)} rows", f"--folds {max(2, len(design.y) // 4)}"
        )
    penalties = dict.fromkeys([settings.penalty, "lasso"])
    with progress("folds", settings.folds * len(penalties)) as advance:
        return {penalty: _fit(design, settings, penalty, advance) for penalty in penalties}


def _fit(design: Design, settings: Settings, penalty: str, advance: Callable[[int], None]) -> Fit:
    lambdas = lambda_grid(design, settings)
    path = fit_path(
        design.columns, design.y, lambdas, family=design.family, settings=settings, penalty=penalty
    )
    p, n = design.columns.shape
    bic = extended_bic(path, n, p, family=design.family, gamma=settings.ebic_gamma)
    validation = cross_validate(design, lambdas, settings, penalty=penalty, advance=advance)
    return Fit(path, bic, validation, int(np.argmin(bic)), int(np.argmin(validation.mean)))


def report(design: Design, settings: Settings, fits: dict[str, Fit]) -> dict[str, Any]:
    """Kind, data, the chosen step with its coefficients in the table's units, the path, and the baselines."""
    fit = fits[settings.penalty]
    step = fit.step(settings.choose)
    null = null_loss(design.y, design.family)
    return {
        "kind": KIND,
        "target": settings.target,
        "family": design.family,
        "classes": list(design.classes),
        "penalty": settings.penalty,
        "shape": settings.concavity,
        "solver": settings.solver,
        "rows": len(design.y),
        "rows_missing": design.rows_missing,
        "columns": len(design.names),
        "dropped": design.dropped,
        "choose": settings.choose,
        "lambda": _six(fit.path.lambdas[step]),
        "at_end": step == len(fit.path.lambdas) - 1,
        "intercept": _six(_intercept(design, fit, step)),
        "selected": _selected(design, fit, step),
        "explained": _six(1 - fit.path.loss[step] / null),
        "held_out_loss": {"mean": _six(fit.validation.mean[step]), "se": _six(fit.validation.se[step])},
        "null_loss": _six(null),
        "sweeps": fit.path.sweeps,
        "violations": fit.path.violations,
        "path": [_step(fit, index) for index in range(len(fit.path.lambdas))],
        "baseline": _baseline(fits["lasso"], settings),
    }


def _selected(design: Design, fit: Fit, step: int) -> list[dict[str, Any]]:
    """Columns with a coefficient, the largest standardised one first."""
    b = fit.path.coefficients[step]
    order = sorted(np.flatnonzero(b).tolist(), key=lambda j: -abs(b[j]))
    return [
        {"name": design.names[j], "coefficient": _six(b[j] / design.spreads[j]), "standardised": _six(b[j])}
        for j in order
    ]


def _intercept(design: Design, fit: Fit, step: int) -> float:
    b = fit.path.coefficients[step] / design.spreads
    return float(fit.path.intercepts[step] - b @ design.means)


def _step(fit: Fit, index: int) -> dict[str, Any]:
    path = fit.path
    return {
        "lambda": _six(path.lambdas[index]),
        "columns": int((path.coefficients[index] != 0).sum()),
        "objective": float(f"{path.objective[index]:.12g}"),
        "ebic": None if np.isinf(fit.bic[index]) else _six(fit.bic[index]),
        "held_out_loss": {"mean": _six(fit.validation.mean[index]), "se": _six(fit.validation.se[index])},
    }


def _baseline(lasso: Fit, settings: Settings) -> dict[str, Any]:
    """What the lasso selects by the same criterion, and its loss on the same folds."""
    step = lasso.step(settings.choose)
    return {
        "penalty": "lasso",
        "columns": int((lasso.path.coefficients[step] != 0).sum()),
        "held_out_loss": {"mean": _six(lasso.validation.mean[step]), "se": _six(lasso.validation.se[step])},
    }


def _six(number: float) -> float:
    return float(f"{number:.6g}")
