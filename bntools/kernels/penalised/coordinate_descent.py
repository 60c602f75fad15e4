"""Coordinate descent along a path of penalties, least squares: the working set by the strong rule, violations repaired.

X [p, n], one column of the design a row, centred, mean square 1. Objective: |y - X^T b|^2 / (2 n) + sum penalty(b_j).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bntools.kernels.penalised.penalties import prox

Floats = NDArray[np.float64]


class Path(NamedTuple):
    """Coefficients [steps, p], sweeps over coordinates, and columns that the strong rule had left out wrongly."""

    coefficients: Floats
    sweeps: int
    violations: int


def gaussian_path(
    design: Floats,
    y: Floats,
    lambdas: Floats,
    *,
    kind: int,
    shape: float,
    tol: float = 1e-7,
    most: int = 10_000,
) -> Path:
    """Coefficients at each of the descending `lambdas`. y centred; tol: change of a coefficient, in units of y's
    spread.

    most: sweeps at one lambda; what has not converged by then stays as it is.
    """
    coefficients = np.zeros((len(lambdas), len(design)))
    scale = max(float(np.sqrt((y**2).mean())), 1e-300)
    counts = _path(design, y, lambdas, (kind, shape, tol * scale, most), coefficients)
    return Path(coefficients, *counts)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _dot(a: Any, b: Any) -> Any:
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, nogil=True, fastmath=True)
def _add(to: Floats, factor: float, what: Floats) -> None:
    for i in range(to.size):
        to[i] += factor * what[i]


@numba.njit(cache=True, nogil=True)
def _sweep(
    design: Floats,
    residual: Floats,
    b: Any,
    members: NDArray[np.int64],
    count: int,
    lam: float,
    penalty: tuple,
) -> float:
    """One pass over the first `count` members; the largest change."""
    largest, n = 0.0, residual.size
    for m in range(count):
        j = members[m]
        new = prox(b[j] + _dot(design[j], residual) / n, lam, penalty[1], penalty[0])
        change = new - b[j]
        if change != 0:
            _add(residual, -change, design[j])
            b[j] = new
            largest = max(largest, abs(change))
    return largest


@numba.njit(cache=True, nogil=True)
def _settle(
    design: Floats,
    residual: Floats,
    b: Floats,
    members: NDArray[np.int64],
    count: int,
    lam: float,
    penalty: tuple,
) -> int:
    """Sweep over the members, and between over those that are not zero, until nothing moves; the number of sweeps."""
    active = np.empty(count, np.int64)
    tol, most = penalty[2], penalty[3]
    sweeps = 0
    while sweeps < most:
        sweeps += 1
        if _sweep(design, residual, b, members, count, lam, penalty) < tol:
            break
        size = 0
        for m in range(count):
            if b[members[m]] != 0:
                active[size] = members[m]
                size += 1
        while sweeps < most:
            sweeps += 1
            if _sweep(design, residual, b, active, size, lam, penalty) < tol:
                break
    return sweeps


@numba.njit(cache=True, nogil=True)
def _path(design: Floats, y: Floats, lambdas: Floats, penalty: tuple, out: Floats) -> tuple[int, int]:
    p, n = design.shape
    b, residual = np.zeros(p), y.copy()
    gradient, inside = np.empty(p), np.zeros(p, np.bool_)
    members = np.empty(p, np.int64)
    for j in range(p):
        gradient[j] = _dot(design[j], residual) / n
    last = lambdas[0] if lambdas.size else 0.0
    sweeps = violations = 0
    for step in range(lambdas.size):
        lam = lambdas[step]
        count = 0
        for j in range(p):
            inside[j] = b[j] != 0 or abs(gradient[j]) >= 2 * lam - last
            if inside[j]:
                members[count] = j
                count += 1
        while True:
            sweeps += _settle(design, residual, b, members, count, lam, penalty)
            before = count
            for j in range(p):
                gradient[j] = _dot(design[j], residual) / n
                if not inside[j] and abs(gradient[j]) > lam * (1 + 1e-9):
                    inside[j] = True
                    members[count] = j
                    count += 1
            if count == before:
                break
            violations += count - before
        out[step] = b
        last = lam
    return sweeps, violations
