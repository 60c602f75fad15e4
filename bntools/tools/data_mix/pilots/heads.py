"""Small models on top of features, trained in a moment: what a pilot run is where no trainer of one's own is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""Tried by cross-validation, from the strongest, each started at the solution of the one before."""
_FOLDS = 3
_STEPS = 400
_TOLERANCE = 1e-4  # largest derivative of the mean loss at which a fit is done
_HIDDEN = 256


class Rows(NamedTuple):
    """Features [n, d] and classes [n]."""

    x: Floats
    y: Ints


class Task(NamedTuple):
    """What a head is trained and scored on. penalty: l2 on the sum of losses; None chooses it by cross-validation."""

    train: Rows
    validation: Rows
    classes: int
    penalty: float | None = None
    seed: int = 0


Head = Callable[[Task], Floats]
"""Trains on a task and returns the scores of its validation rows, [n, classes]."""


def logistic(task: Task) -> Floats:
    """Multinomial logistic regression: minimises sum of cross-entropies + penalty / 2 |W|^2, the bias free."""
    penalty = task.penalty if task.penalty is not None else _chosen(task, _logistic_path)
    return _scores(_logistic_path(task.train, task.classes, (penalty,))[-1], task.validation.x)


def ridge(task: Task) -> Floats:
    """Least squares on class indicators: minimises sum of squares + penalty |W|^2, the bias free."""
    penalty = task.penalty if task.penalty is not None else _chosen(task, _ridge_path)
    return _scores(_ridge_path(task.train, task.classes, (penalty,))[-1], task.validation.x)


def mlp(task: Task) -> Floats:
    """One hidden layer of 256 rectified units, its last layer logistic; 40 epochs of Adam from a seeded start."""
    rng = np.random.default_rng(task.seed)
    width, penalty = task.train.x.shape[1], (10.0 if task.penalty is None else task.penalty) / len(task.train.y)
    first = rng.standard_normal((width + 1, _HIDDEN)) * np.sqrt(2 / (width + 1))
    weights = [first, np.zeros((_HIDDEN + 1, task.classes))]
    moments = [[np.zeros_like(w), np.zeros_like(w)] for w in weights]
    x, step = _with_bias(task.train.x), 0
    for _ in range(40):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 128):
            step += 1
            rows = order[start : start + 128]
            for w, m, g in zip(weights, moments, _mlp_gradient(weights, x[rows], task.train.y[rows]), strict=True):
                g = g + penalty * w
                m[0] += 0.1 * (g - m[0])
                m[1] += 0.001 * (g * g - m[1])
                w -= 0.002 * (m[0] / (1 - 0.9**step)) / (np.sqrt(m[1] / (1 - 0.999**step)) + 1e-8)
    hidden = np.maximum(_with_bias(task.validation.x) @ weights[0], 0)
    return _with_bias(hidden) @ weights[1]


HEADS: dict[str, Head] = {"logistic": logistic, "ridge": ridge, "mlp": mlp}


def _mlp_gradient(weights: list[Floats], x: Floats, y: Ints) -> list[Floats]:
    before = x @ weights[0]
    hidden = _with_bias(np.maximum(before, 0))
    residual = _residual(hidden @ weights[1], y)[1] / len(y)
    back = (residual @ weights[1][:-1].T) * (before > 0)
    return [x.T @ back, hidden.T @ residual]


def cross_entropy(scores: Floats, y: Ints) -> float:
    """Mean cross-entropy in nats of class scores [n, classes]."""
    return _residual(scores, y)[0] / len(y)


def _residual(scores: Floats, y: Ints) -> tuple[float, Floats]:
    """Sum of cross-entropies, and probabilities minus indicators [n, classes]."""
    top = scores.max(1, keepdims=True)
    result = np.exp(scores - top)
    total = result.sum(1, keepdims=True)
    rows = np.arange(len(y))
    value = float((np.log(total) + top).sum() - scores[rows, y].sum())
    result /= total
    result[rows, y] -= 1
    return value, result


def _logistic_path(train: Rows, classes: int, penalties: tuple[float, ...]) -> list[Floats]:
    """Weights [d + 1, classes], the bias last, at each penalty."""
    from scipy.optimize import minimize

    x, weights, path = _with_bias(train.x), np.zeros((train.x.shape[1] + 1, classes)), []
    for penalty in penalties:

        def objective(flat: Floats, penalty: float = penalty) -> tuple[float, Floats]:
            w = flat.reshape(weights.shape)
            value, residual = _residual(x @ w, train.y)
            gradient = x.T @ residual
            gradient[:-1] += penalty * w[:-1]
            value += penalty / 2 * float((w[:-1] ** 2).sum())
            return value / len(x), (gradient / len(x)).ravel()

        options = {"maxiter": _STEPS, "gtol": _TOLERANCE, "maxcor": 20}
        weights = minimize(objective, weights.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(
            weights.shape
        )
        path.append(weights)
    return path


def _ridge_path(train: Rows, classes: int, penalties: tuple[float, ...]) -> list[Floats]:
    target = np.eye(classes)[train.y]
    middle, level = train.x.mean(0), target.mean(0)
    x = train.x - middle
    values, vectors = np.linalg.eigh(x.T @ x)
    product, path = vectors.T @ (x.T @ (target - level)), []
    for penalty in penalties:
        w = vectors @ (product / (np.maximum(values, 0) + penalty)[:, None])
        path.append(np.vstack([w, level - middle @ w]))
    return path


def _chosen(task: Task, path: Callable[[Rows, int, tuple[float, ...]], list[Floats]]) -> float:
    """The penalty with the least errors, then the stronger one, by 3-fold cross-validation on the training rows."""
    fold = np.random.default_rng(task.seed).permutation(len(task.train.y)) % _FOLDS
    wrong = np.zeros(len(_PENALTIES))
    for index in range(_FOLDS):
        inside = Rows(task.train.x[fold != index], task.train.y[fold != index])
        held = Rows(task.train.x[fold == index], task.train.y[fold == index])
        for rank, weights in enumerate(path(inside, task.classes, _PENALTIES)):
            wrong[rank] += (_scores(weights, held.x).argmax(1) != held.y).sum()
    return _PENALTIES[int(wrong.argmin())]


def _with_bias(x: Floats) -> Floats:
    return np.hstack([x, np.ones((len(x), 1))])


def _scores(weights: Floats, x: Floats) -> Floats:
    return x @ weights[:-1] + weights[-1]
