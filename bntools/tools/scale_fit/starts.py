"""Where to start from: on a grid of exponents the rest is a small least-squares problem, solved exactly.

This is variable projection (Golub and Pereyra, 1973): for fixed exponents the laws are linear in E, A and B, so the
search is over one or two numbers, not five.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from bntools.tools.scale_fit.laws import Array, Law
from bntools.tools.scale_fit.objective import Problem, objective

GRID = 40
"""Exponents a variable, log-spaced from `LOWEST` to `HIGHEST`."""
LOWEST, HIGHEST = 0.01, 4.0
_KAPLAN_GRID = 20
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97)
"""Values of E tried with `kaplan`, as shares of the smallest loss."""


def starts(problem: Problem, count: int, grid: int = GRID) -> Array:
    """The `count` most promising parameter vectors [count, parameters], best first by the Huber objective.

    Half are local minima of the grid, so that two valleys are both started from; the rest are the next best nodes.
    """
    tables = list(_kaplan(problem)) if problem.law.name == "kaplan" else [_additive(problem, grid)]
    theta = np.concatenate([table.reshape(-1, table.shape[-1]) for table in tables])
    values = _values(problem, theta)
    valleys, position = [], 0
    for table in tables:
        size = int(np.prod(table.shape[:-1]))
        valleys.append(_local_minima(values[position : position + size].reshape(table.shape[:-1])) + position)
        position += size
    first = np.concatenate(valleys)
    first = first[np.argsort(values[first], kind="stable")][: max(count // 2, 1)]
    order = np.argsort(values, kind="stable")
    rest = order[~np.isin(order, first)]
    chosen = np.concatenate([first, rest])[:count]
    return theta[chosen[np.argsort(values[chosen], kind="stable")]]


def _values(problem: Problem, theta: Array) -> Array:
    """The objective, some rows at a time: the arrays stay in the cache."""
    rows = max(1, 65536 // problem.y.size)
    return np.concatenate([objective(problem, theta[i : i + rows])[0] for i in range(0, len(theta), rows)])


def _local_minima(values: Array) -> Array:
    """Flat indices of the nodes no neighbour of which is lower."""
    padded = np.pad(np.where(np.isfinite(values), values, np.inf), 1, constant_values=np.inf)
    inner = tuple(slice(1, -1) for _ in values.shape)
    lowest = np.isfinite(padded[inner])
    for shift in itertools.product((-1, 0, 1), repeat=values.ndim):
        moved = padded[tuple(slice(1 + s, n + 1 + s) for s, n in zip(shift, values.shape, strict=True))]
        lowest &= values <= moved
    return np.flatnonzero(lowest)


def _exponents(count: int) -> Array:
    return np.geomspace(LOWEST, HIGHEST, count)


def _additive(problem: Problem, grid: int) -> Array:
    """Parameter vectors [grid (, grid), parameters] of least squared relative error at each pair of exponents."""
    exponents = _exponents(grid)
    weight = np.exp(-problem.y)
    powers = [np.exp(-exponents[:, None] * x) * weight for x in problem.x]  # columns over the measured loss
    columns = [*powers, weight[None]] if problem.law.irreducible else powers
    shape = (grid,) * len(powers)
    solution = nonnegative(*_normal(columns, shape))
    axes = np.meshgrid(*([exponents] * len(powers)), indexing="ij")
    return _vectors(problem.law, solution, axes)


def _normal(columns: list[Array], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Normal matrices [*shape, k, k], right sides [*shape, k] for the target 1; a column varies along its own axis."""
    k = len(columns)
    matrix, right = np.empty((*shape, k, k)), np.empty((*shape, k))

    def spread(values: Array, *axes: int) -> Array:
        full = [1] * len(shape)
        for axis, size in zip(axes, values.shape, strict=True):
            if axis < len(shape):
                full[axis] = size
        return values.reshape(full)

    for i, column in enumerate(columns):
        right[..., i] = spread(column.sum(1), i)
        matrix[..., i, i] = spread((column**2).sum(1), i)
        for j in range(i):
            matrix[..., i, j] = matrix[..., j, i] = spread(columns[j] @ column.T, j, i)
    return matrix, right


def nonnegative(matrix: Array, right: Array) -> Array:
    """Least squares with no coefficient below zero, [..., k], from normal matrices [..., k, k], for k of 1 to 3.

    Every choice of the coefficients that are not zero is solved, and the best feasible one kept.
    """
    k = right.shape[-1]
    best = np.zeros(right.shape)
    lowest = np.zeros(right.shape[:-1])  # x^T M x - 2 r^T x, 0 at x = 0
    for size in range(1, k + 1):
        for chosen in itertools.combinations(range(k), size):
            some = np.array(chosen)
            part = matrix[..., some[:, None], some] + 0.0
            diagonal = np.einsum("...ii->...i", part)
            diagonal *= 1 + 1e-12  # equal columns stay solvable
            x = np.linalg.solve(part, right[..., some, None])[..., 0]
            value = -np.einsum("...i,...i->...", x, right[..., some])
            better = (x >= 0).all(-1) & (value < lowest)
            lowest = np.where(better, value, lowest)
            full = np.zeros(right.shape)
            full[..., some] = x
            best = np.where(better[..., None], full, best)
    return best


def _vectors(law: Law, solution: Array, axes: Sequence[Array]) -> Array:
    """Parameter vectors from coefficients (A, B, E) and exponents; a coefficient of zero becomes a small one."""
    logs = np.log(np.maximum(solution, 1e-3 * solution.max(-1, keepdims=True)) + 1e-300)
    parts = [logs[..., 0], axes[0]]
    if law.joint:
        parts += [logs[..., 1], axes[1]]
    if law.irreducible:
        parts.append(logs[..., -1])
    return np.stack(parts, -1)


def _kaplan(problem: Problem) -> list[Array]:
    """Parameter vectors for each E tried: then (L - E)^(1/beta) is linear in A^(1/beta) and B^(1/beta)."""
    loss = np.exp(problem.y)
    tables = []
    for share in _SHARES if problem.law.irreducible else (0.0,):
        e = share * loss.min()
        rest = loss - e
        rows = [_kaplan_row(problem, beta, np.log(rest), rest / loss) for beta in _exponents(_KAPLAN_GRID)]
        table = np.stack(rows, 1)  # [alpha, beta, parameters]
        if problem.law.irreducible:
            last = np.full((*table.shape[:-1], 1), np.log(max(e, 1e-3 * loss.min())))
            table = np.concatenate([table, last], -1)
        tables.append(table)
    return tables


def _kaplan_row(problem: Problem, beta: float, log_rest: Array, share: Array) -> Array:
    """Vectors [alpha, 4] at one beta. An error of (L - E)^(1/beta) is worth beta (L - E) / L of log loss."""
    exponents = _exponents(_KAPLAN_GRID)
    first, first_top = _scaled(-(exponents[:, None] * problem.x[0] + log_rest) / beta, share)
    second, second_top = _scaled((-problem.x[1] - log_rest / beta)[None], share)
    target = share
    matrix = np.empty((len(exponents), 2, 2))
    matrix[:, 0, 0] = (first**2).sum(1)
    matrix[:, 1, 1] = (second**2).sum()
    matrix[:, 0, 1] = matrix[:, 1, 0] = (first * second).sum(1)
    right = np.stack([first @ target, np.full(len(exponents), (second @ target)[0])], -1)
    solution = nonnegative(matrix, right)
    small = 1e-9 * solution.max(-1, keepdims=True) + 1e-300
    logs = beta * (
        np.log(np.maximum(solution, small)) - np.stack(np.broadcast_arrays(first_top, second_top), -1)
    )
    return np.stack([logs[:, 0], exponents, logs[:, 1], np.full(len(exponents), beta)], -1)


def _scaled(powers: Array, share: Array) -> tuple[Array, Array]:
    """exp(powers) * share with each row divided by exp of its largest power, and those [rows]."""
    top = powers.max(1)
    return np.exp(powers - top[:, None]) * share, top
