"""The optimal transport distance of a mixture to the validation data, and its gradient by the weights.

The training side is a fixed subset of each source, every row of source i with mass p_i / count. Dual potentials of one
mixture are feasible for all, so that each gives a plane below the distance, tight at its own mixture: the distance of
any mixture is the highest of the planes of a grid, and its gradient the slopes of that plane, mean(u | source i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import require
from bntools.tools.data_mix.choose.simplex import candidates, grid, landmarks
from bntools.tools.data_mix.pilots.heads import Rows
from bntools.tools.data_mix.pilots.sources import Source

Floats = NDArray[np.floating[Any]]

_POINTS = {2: 20, 3: 10, 4: 5}  # steps of the grid whose planes are computed
_MANY = 60


class Settings(NamedTuple):
    """rows: of each source and of the validation data; label: `means` or `gaussian` distances between classes."""

    rows: int = 200
    label: str = "means"
    seed: int = 0


class Planes(NamedTuple):
    """slopes [planes, sources] and constants [planes]: the distance is the highest of slopes p + constant."""

    slopes: Floats
    constants: Floats

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Distances [k] and their gradients [k, sources], along the simplex."""
        heights = weights @ self.slopes.T + self.constants
        top = heights.argmax(1)
        slopes = self.slopes[top]
        return heights.max(1), slopes - (weights * slopes).sum(1, keepdims=True)


def planes(sources: Sequence[Source], validation: Rows, settings: Settings = Settings()) -> Planes:
    """Exact transport from a grid of mixtures, by POT. Raises BnError (exit 5) without it."""
    ot = require("ot", "ot")
    costs = _costs(sources, validation, settings)
    count, target = costs.shape[0] // len(sources), np.full(costs.shape[1], 1 / costs.shape[1])
    slopes, constants = [], []
    for p in _grid(len(sources)):
        mass = np.repeat(p / count, count)
        some = mass > 0
        _, log = ot.emd2(mass[some], target, costs[some], log=True, numItermax=1_000_000)
        v = log["v"]
        u = (costs - v).min(1)  # the highest potentials that these v allow, also of sources without mass
        slopes.append(u.reshape(len(sources), count).mean(1))
        constants.append(float(target @ v))
    return Planes(np.stack(slopes), np.array(constants))


def _grid(sources: int) -> Floats:
    if sources in _POINTS:
        return grid(sources, _POINTS[sources])
    return np.vstack([landmarks(sources), candidates(sources)[-_MANY:]])


def _costs(sources: Sequence[Source], validation: Rows, settings: Settings) -> Floats:
    """Subsets of all sources, as many rows of each, and costs [rows of all sources, validation rows].

    |x - x'|^2 over its mean, plus a distance between the classes of both rows over its mean.
    """
    rng = np.random.default_rng([settings.seed, 51])
    count = min(settings.rows, *(len(s) for s in sources))
    parts = [_some(s.rows, count, rng) for s in sources]
    goal = _some(validation, min(2 * settings.rows, len(validation.y)), rng)
    x, y = np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts])
    cost = _squares(x, goal.x)
    labels = (_bures if settings.label == "gaussian" else _means)(validation)[y][:, goal.y]
    return cost / cost.mean() + labels / max(float(labels.mean()), 1e-12)


def _some(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    pick = rng.permutation(len(rows.y))[:count]
    return Rows(rows.x[pick], rows.y[pick])


def _squares(a: Floats, b: Floats) -> Floats:
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0)


def _means(rows: Rows) -> Floats:
    """Squared distances [classes, classes] of class means."""
    classes = int(rows.y.max()) + 1
    means = np.stack([rows.x[rows.y == c].mean(0) if (rows.y == c).any() else rows.x.mean(0) for c in range(classes)])
    return _squares(means, means)


def _bures(rows: Rows) -> Floats:
    """Squared 2-Wasserstein distances [classes, classes] of the classes' Gaussians (Alvarez-Melis and Fusi, 2020)."""
    classes = int(rows.y.max()) + 1
    covs, roots = [], []
    for c in range(classes):
        part = rows.x[rows.y == c] if (rows.y == c).sum() > 1 else rows.x
        cov = np.cov(part.T) + 1e-9 * np.eye(rows.x.shape[1])
        covs.append(cov)
        roots.append(_root(cov))
    result = _means(rows)
    for a in range(classes):
        for b in range(a):
            cross = float(np.sqrt(np.maximum(np.linalg.eigvalsh(roots[a] @ covs[b] @ roots[a]), 0)).sum())
            result[a, b] += max(float(np.trace(covs[a]) + np.trace(covs[b])) - 2 * cross, 0.0)
            result[b, a] = result[a, b]
    return result


def _root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
