"""Coordinate descent for logistic and Poisson regression: Newton's quadratic around the current fit, penalised,
repeated.

X [p, n] centred, mean square 1; the intercept is not penalised. Objective: minus the mean log-likelihood (less what
does not depend on b) + sum penalty(b_j).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.penalised.coordinate_descent import Floats, Path, _add, _dot
from bntools.kernels.penalised.penalties import curved_prox, value

LOGISTIC, POISSON = 1, 2


def likelihood_path(
    design: Floats, y: Floats, lambdas: Floats, *, family: int, kind: int, shape: float, tol: float = 1e-6
) -> tuple[Path, Floats]:
    """Coefficients at each of the descending `lambdas`, and intercepts [steps]. y: 0 and 1, or counts."""
    coefficients, intercepts = np.zeros((len(lambdas), len(design))), np.zeros(len(lambdas))
    counts = _path(design, y.astype(float), lambdas, (family, kind, shape, tol), coefficients, intercepts)
    return Path(coefficients, *counts), intercepts


@numba.njit(cache=True, nogil=True)
def mean_loss(eta: Floats, y: Floats, family: int) -> float:
    """Minus the mean log-likelihood, less what does not depend on eta."""
    total = 0.0
    for i in range(y.size):
        if family == 1:
            total += max(eta[i], 0.0) + np.log1p(np.exp(-abs(eta[i]))) - y[i] * eta[i]
        else:
            total += np.exp(min(eta[i], 50.0)) - y[i] * eta[i]
    return total / y.size


@numba.njit(cache=True, nogil=True)
def _weights(eta: Floats, y: Floats, family: int, w: Floats, residual: Floats) -> None:
    """Curvature w and w-weighted residual y - mu of the likelihood at eta."""
    for i in range(y.size):
        mu = 1 / (1 + np.exp(-eta[i])) if family == 1 else np.exp(min(eta[i], 50.0))
        w[i] = max(mu * (1 - mu) if family == 1 else mu, 1e-5)  # a fitted 0 or 1 has no curvature
        residual[i] = y[i] - mu


@numba.njit(cache=True, nogil=True)
def _objective(
    eta: Floats, y: Floats, b: Any, members: NDArray[np.int64], count: int, lam: float, model: tuple
) -> float:
    total = mean_loss(eta, y, model[0])
    for m in range(count):
        total += value(b[members[m]], lam, model[2], model[1])
    return total


@numba.njit(cache=True, nogil=True, fastmath=True)
def _quadratic(
    design: Floats,
    w: Floats,
    residual: Floats,
    b: Any,
    members: NDArray[np.int64],
    count: int,
    lam: float,
    model: tuple,
) -> float:
    """Descend on the quadratic until nothing moves; the change of the intercept. residual: w-weighted, kept up."""
    n = w.size
    v = np.empty(count)
    for m in range(count):
        total = 0.0
        for i in range(n):
            total += w[i] * design[members[m], i] ** 2
        v[m] = total / n
    weight, moved = w.sum(), 0.0
    for sweep in range(1000):
        shift = residual.sum() / weight
        moved += shift
        _add(residual, -shift, w)
        largest = abs(shift)
        for m in range(count):
            j = members[m]
            if sweep % 5 and b[j] == 0:
                continue
            new = curved_prox(b[j] + _dot(design[j], residual) / (n * v[m]), v[m], lam, model[2], model[1])
            change = new - b[j]
            if change != 0:
                for i in range(n):
                    residual[i] -= change * w[i] * design[j, i]
                b[j] = new
                largest = max(largest, abs(change))
        if largest < model[3] * 0.1 and sweep % 5 == 0:
            break
    return moved


@numba.njit(cache=True, nogil=True)
def _settle(
    design: Floats,
    y: Floats,
    eta: Floats,
    b: Any,
    members: NDArray[np.int64],
    count: int,
    lam: float,
    model: tuple,
) -> tuple[float, int]:
    """Repeat the quadratic until its minimum is where it was made; the change of the intercept, and the rounds."""
    w, residual, old_eta, old_b = np.empty(y.size), np.empty(y.size), eta.copy(), b.copy()
    intercept, rounds = 0.0, 0
    before = _objective(eta, y, b, members, count, lam, model)
    for _ in range(100):
        rounds += 1
        old_eta[:], old_b[:] = eta, b
        factor, moved, largest = 1.0, 0.0, 0.0
        for _ in range(
            12
        ):  # the quadratic is no bound: with more curvature from the same point it becomes one
            _weights(eta, y, model[0], w, residual)
            w *= factor
            moved = _quadratic(design, w, residual, b, members, count, lam, model)
            eta += moved
            largest = abs(moved)
            for m in range(count):
                j = members[m]
                change = b[j] - old_b[j]
                if change != 0:
                    _add(eta, change, design[j])
                    largest = max(largest, abs(change))
            after = _objective(eta, y, b, members, count, lam, model)
            if after <= before + 1e-12 * abs(before):
                before = after
                break
            eta[:], b[:] = old_eta, old_b
            factor, moved, largest = 2 * factor, 0.0, 0.0
        intercept += moved
        if largest < model[3]:
            break
    return intercept, rounds


@numba.njit(cache=True, nogil=True)
def _path(
    design: Floats, y: Floats, lambdas: Floats, model: tuple, out: Floats, intercepts: Floats
) -> tuple[int, int]:
    p, n = design.shape
    mean = y.mean()
    intercept = np.log(mean / (1 - mean)) if model[0] == 1 else np.log(mean)
    b, eta = np.zeros(p), np.full(n, intercept)
    w, residual = np.empty(n), np.empty(n)
    gradient, inside, members = np.empty(p), np.zeros(p, np.bool_), np.empty(p, np.int64)
    last = lambdas[0] if lambdas.size else 0.0
    _weights(eta, y, model[0], w, residual)
    for j in range(p):
        gradient[j] = _dot(design[j], residual) / n
    rounds = violations = 0
    for step in range(lambdas.size):
        lam, count = lambdas[step], 0
        for j in range(p):
            inside[j] = b[j] != 0 or abs(gradient[j]) >= 2 * lam - last
            if inside[j]:
                members[count] = j
                count += 1
        while True:
            moved, done = _settle(design, y, eta, b, members, count, lam, model)
            intercept, rounds, before = intercept + moved, rounds + done, count
            _weights(eta, y, model[0], w, residual)
            for j in range(p):
                gradient[j] = _dot(design[j], residual) / n
                if not inside[j] and abs(gradient[j]) > lam * (1 + 1e-9):
                    inside[j] = True
                    members[count] = j
                    count += 1
            if count == before:
                break
            violations += count - before
        out[step], intercepts[step], last = b, intercept, lam
    return rounds, violations
