"""Paths of penalised fits, and the criteria that choose a step: extended BIC and cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from math import lgamma
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.penalised.accelerated_gradient import accelerated_gradient, smoothness
from bntools.kernels.penalised.coordinate_descent import gaussian_path
from bntools.kernels.penalised.penalties import NAMES, value
from bntools.kernels.penalised.weighted_descent import LOGISTIC, POISSON, likelihood_path, mean_loss
from bntools.tools.sparse_fit.design import Design
from bntools.tools.sparse_fit.settings import Settings

Floats = NDArray[np.float64]
_FAMILY = {"logistic": LOGISTIC, "poisson": POISSON}


class FittedPath(NamedTuple):
    """At each penalty of `lambdas` [k]: coefficients [k, p] of standardised columns, intercepts, mean loss,
    objective."""

    lambdas: Floats
    coefficients: Floats
    intercepts: Floats
    loss: Floats
    objective: Floats
    sweeps: int
    violations: int


def lambda_grid(design: Design, settings: Settings) -> Floats:
    """Penalties from the smallest at which all coefficients are 0 down to `ratio` of it, in equal ratios."""
    p, n = design.columns.shape
    largest = float(np.abs(design.columns @ (design.y - design.y.mean())).max()) / n
    ratio = settings.ratio or (0.001 if n > p else 0.05)
    largest *= 1 + 1e-9  # rounding must not let a column in at the first
    return np.geomspace(largest, largest * ratio, settings.steps)


def fit_path(
    columns: Floats, y: Floats, lambdas: Floats, *, family: str, settings: Settings, penalty: str
) -> FittedPath:
    """One path; columns [p, n] standardised over these rows or others."""
    kind = NAMES[penalty]
    shape = settings.concavity if penalty == settings.penalty else 1.0
    if family == "gaussian":
        mean = y.mean()
        shift = columns.mean(1)  # of a fold: not zero
        centred = columns - shift[:, None] if np.abs(shift).max() > 1e-10 else columns
        solve = _gradient_path if settings.solver == "ag" and penalty != "lasso" else gaussian_path
        path = solve(centred, y - mean, lambdas, kind=kind, shape=shape)
        intercepts = mean - path.coefficients @ shift
    else:
        path, intercepts = likelihood_path(
            columns, y, lambdas, family=_FAMILY[family], kind=kind, shape=shape
        )
    loss = np.array(
        [_loss(columns, y, b, c, family) for b, c in zip(path.coefficients, intercepts, strict=True)]
    )
    pairs = zip(path.coefficients, lambdas, strict=True)
    penalties = [sum(value(c, lam, shape, kind) for c in b[b != 0].tolist()) for b, lam in pairs]
    return FittedPath(
        lambdas, path.coefficients, intercepts, loss, loss + penalties, path.sweeps, path.violations
    )


def _gradient_path(columns: Floats, y: Floats, lambdas: Floats, *, kind: int, shape: float) -> FittedPath:
    """The path by accelerated gradients, each from the one before."""
    lipschitz, b, steps, iterations = smoothness(columns, kind, shape), np.zeros(len(columns)), [], 0
    for lam in lambdas:
        descent = accelerated_gradient(columns, y, float(lam), b, kind=kind, shape=shape, lipschitz=lipschitz)
        b, iterations = descent.coefficients, iterations + descent.iterations
        steps.append(b)
    empty = np.zeros(len(lambdas))
    return FittedPath(lambdas, np.array(steps), empty, empty, empty, iterations, 0)


def _loss(columns: Floats, y: Floats, b: Floats, intercept: float, family: str) -> float:
    """Mean loss: half the squared error, or minus the log-likelihood less what does not depend on the fit."""
    active = np.flatnonzero(b)
    eta = intercept + b[active] @ columns[active]
    if family == "gaussian":
        return float(((y - eta) ** 2).mean()) / 2
    return float(mean_loss(eta, y, _FAMILY[family]))


def null_loss(y: Floats, family: str) -> float:
    """Mean loss of the intercept alone."""
    mean = float(y.mean())
    intercept = {
        "gaussian": lambda: mean,
        "logistic": lambda: np.log(mean / (1 - mean)),
        "poisson": lambda: np.log(mean),
    }
    return _loss(np.empty((0, len(y))), y, np.empty(0), float(intercept[family]()), family)


def extended_bic(path: FittedPath, rows: int, columns: int, *, family: str, gamma: float) -> Floats:
    """-2 log-likelihood + df ln n + 2 gamma ln C(p, df) at each step (Chen and Chen, Biometrika 2008)."""
    df = (path.coefficients != 0).sum(1)
    fit = rows * np.log(np.maximum(2 * path.loss, 1e-300)) if family == "gaussian" else 2 * rows * path.loss
    choices = np.array([lgamma(columns + 1) - lgamma(d + 1) - lgamma(columns - d + 1) for d in df.tolist()])
    bic = fit + df * np.log(rows) + 2 * gamma * choices
    return np.where(df < rows - 1, bic, np.inf)


class Validation(NamedTuple):
    """Mean held-out loss at each step, and its standard error over folds."""

    mean: Floats
    se: Floats


def cross_validate(
    design: Design, lambdas: Floats, settings: Settings, *, penalty: str, advance: Callable[[int], None]
) -> Validation:
    """Held-out loss over `folds`; classes are spread evenly. The same folds for every penalty."""
    folds = fold_of(design, settings)
    losses = []
    for fold in range(settings.folds):
        train, test = folds != fold, folds == fold
        columns = np.ascontiguousarray(design.columns[:, train])
        path = fit_path(
            columns, design.y[train], lambdas, family=design.family, settings=settings, penalty=penalty
        )
        held = np.ascontiguousarray(design.columns[:, test])
        pairs = zip(path.coefficients, path.intercepts, strict=True)
        losses.append([_loss(held, design.y[test], b, c, design.family) for b, c in pairs])
        advance(1)
    table = np.array(losses)
    return Validation(table.mean(0), table.std(0, ddof=1) / np.sqrt(len(table)))


def fold_of(design: Design, settings: Settings) -> NDArray[np.int64]:
    """The fold of each row: in turns along the outcome, sorted and with ties shuffled, then shuffled in each turn."""
    rng = np.random.default_rng([settings.seed, len(design.y)])
    order = np.lexsort((rng.random(len(design.y)), design.y))
    folds = np.empty(len(order), np.int64)
    for start in range(0, len(order), settings.folds):
        part = order[start : start + settings.folds]
        folds[part] = rng.permutation(settings.folds)[: len(part)]
    return folds
