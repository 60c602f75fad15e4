"""Mutual information and entropy from nearest neighbours, as one term a point: their mean is the estimate."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.kernels.information.box_tree import build, kth_distances
from bntools.kernels.information.neighbour_counts import (
    TREE_WIDTH,
    NeighbourCounts,
    Side,
    nearer,
    neighbour_counts,
)

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

TIE = 1e-9
"""Distances that differ by less than this share are equal: differences of multiples of 0.1 are not so exactly."""


def digamma(values: NDArray | float) -> Floats:
    """psi of positive numbers."""
    return torch.special.digamma(torch.as_tensor(np.asarray(values, np.float64))).numpy()


def kraskov_terms(counts: NeighbourCounts, total: int, k: int) -> Floats:
    """psi(k) + psi(N) - psi(n_x + 1) - psi(n_y + 1) of each measured point (Kraskov et al. 2004, eq. 8)."""
    table = digamma(np.arange(1, total + 1))
    return table[k - 1] + table[total - 1] - table[counts.x] - table[counts.y]


def kraskov(x: Floats, y: Floats, k: int = 3, queries: Indices | None = None) -> float:
    """Kraskov's first estimator, in nats; queries: rows over which the mean is taken, all if None."""
    counts = neighbour_counts(Side.of(x), Side.of(y), k, queries)
    return float(kraskov_terms(counts, len(x), k).mean())


def mixed_terms(x: Side, y: Side, k: int) -> tuple[Floats, Indices]:
    """Terms for numbers that repeat, and their rows: Kraskov's, and where neighbours tie Gao's (Gao et al. 2017).

    Where more than the neighbour lies just as near in a part, that part's count includes it and k becomes the number
    of points no farther in both: on atoms the terms are those of the plug-in estimate. Deviation: psi of the
    counts, as in their code, where the paper has ln, which is 0.2 nats too low on X ~ {0, 1}, Y ~ U[X, X + 2].
    """
    counts = neighbour_counts(x, y, k)
    rows, radii, total = counts.rows, counts.radii, len(x.points)
    sides = [counts.x + 1, counts.y + 1]
    near, tied = np.full(len(rows), k), radii == 0
    for index, part in enumerate((x, y)):
        if not _repeats(part.points):
            continue
        if x.points.shape[1] + y.points.shape[1] <= TREE_WIDTH:
            closed = nearer(part, rows, radii * (1 + TIE), closed=True)
            level = closed - nearer(part, rows, radii * (1 - TIE)) > 1  # more than the neighbour itself
        else:
            closed, level = closed_counts((part.points,), rows, radii), radii == 0
        sides[index] = np.where(level, closed + 1, sides[index])
        tied |= level
    if tied.any():
        near[tied] = closed_counts((x.points, y.points), rows[tied], radii[tied])
        near[tied] += radii[tied] == 0  # on an atom the point itself is one of its weight
    return digamma(near) + digamma(total) - digamma(sides[0]) - digamma(sides[1]), rows


def _repeats(points: Floats) -> bool:
    return any(len(np.unique(column)) < len(column) for column in points.T)


def closed_counts(parts: tuple[Floats, ...], rows: Indices, radii: Floats, block: int = 64) -> Indices:
    """Other points no farther from each row than its radius in every part, by differences in blocks."""
    order = np.inf if sum(part.shape[1] for part in parts) <= TREE_WIDTH else 2
    out = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), block):
        chosen, limit = rows[start : start + block], radii[start : start + block, None]
        inside = np.ones((len(chosen), len(parts[0])), bool)
        for part in parts:
            inside &= np.linalg.norm(part[chosen, None] - part, ord=order, axis=2) <= limit * (1 + TIE)
        out[start : start + block] = inside.sum(1) - 1
    return out


def labelled_terms(
    x: Floats, labels: Indices, k: int, queries: Indices | None = None
) -> tuple[Floats, Indices]:
    """Terms of Ross (2014) for a class label: psi(N) + psi(k) - psi(n_class) - psi(m), and their rows.

    m counts the points of all classes nearer than the k-th neighbour of the point's own class, that one included.
    A class of k points or fewer takes its largest possible k; a class of one point has no term. queries: rows to
    measure, all if None.
    """
    whole = Side.of(x)
    wanted = np.ones(len(x), bool)
    if queries is not None:
        wanted[:] = False
        wanted[queries] = True
    rows, terms = [np.empty(0, np.int64)], [np.empty(0)]
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        places = np.flatnonzero(wanted[own])
        if len(own) < 2 or not len(places):
            continue
        near = min(k, len(own) - 1)
        measured, radii = own[places], _own_class_radii(x[own], places, near)
        if whole.ranks is None and whole.tree is None:
            inside = _open_counts(whole.points, measured, radii)
        else:
            inside = nearer(whole, measured, radii)
        inside = np.maximum(inside + 1, near)
        rows.append(measured)
        terms.append(digamma(len(labels)) + digamma(near) - digamma(len(own)) - digamma(inside))
    return np.concatenate(terms), np.concatenate(rows)


def _own_class_radii(points: Floats, places: Indices, k: int) -> Floats:
    """Distance of some points of one class to their k-th neighbour in it."""
    if points.shape[1] >= TREE_WIDTH:
        return _euclidean_kth(points, places, k)
    tree = build(points)
    position = np.empty(len(points), np.int64)
    position[tree.rows] = np.arange(len(points))
    return kth_distances(tree, position[places], k)[:, -1]


def _euclidean_kth(points: Floats, places: Indices, k: int, block: int = 128) -> Floats:
    out = np.empty(len(places))
    for start in range(0, len(places), block):
        apart = _distances(points[places[start : start + block]], points)
        out[start : start + block] = np.partition(apart, k, axis=1)[:, k]
    return out


def _open_counts(points: Floats, rows: Indices, radii: Floats, block: int = 128) -> Indices:
    out = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), block):
        apart = _distances(points[rows[start : start + block]], points)
        limit = radii[start : start + block, None] * (1 - 1e-9)
        out[start : start + block] = (apart < limit).sum(1) - (limit[:, 0] > 0)
    return out


def _distances(queries: Floats, points: Floats) -> Floats:
    squares = np.square(queries).sum(1)[:, None] - 2 * queries @ points.T + np.square(points).sum(1)
    return np.sqrt(np.maximum(squares, 0))


def neighbour_entropy(distances: Floats, width: int, total: int, *, weights: Floats | None = None) -> float:
    """Kozachenko and Leonenko's entropy from Euclidean distances [M, k] to the first k neighbours, in nats.

    d <ln r_j> + ln V_d + ln(N - 1) - psi(j), at j = k, or averaged over j by `weights` [k] that sum to one.
    Points that coincide have no logarithm: their distance is taken as the least positive one.
    """
    ranks = np.arange(1, distances.shape[1] + 1)
    positive = distances[distances > 0]
    if not len(positive):
        return -math.inf
    logs = np.log(np.maximum(distances, positive.min())).mean(0)
    volume = width / 2 * math.log(math.pi) - math.lgamma(width / 2 + 1)
    each = width * logs + volume + math.log(total - 1) - digamma(ranks)
    return float(each[-1] if weights is None else each @ weights)


def entropy_weights(width: int, k: int) -> Floats:
    """Weights [k] that cancel the bias terms of orders (j / N)^(2 l / d), l up to d / 4, of least norm.

    Berrett, Samworth and Yuan (2019): support on the ranks floor(i k / d). For d under 4 nothing need cancel: equal
    weights there would only add the bias of far neighbours, so the k-th alone is used.
    """
    weights = np.zeros(k)
    orders = width // 4
    if orders == 0:
        weights[-1] = 1
        return weights
    support = np.unique([max(i * k // width, 1) for i in range(1, width + 1)])
    rows = [np.ones(len(support))]
    for order in range(1, orders + 1):
        gammas = [math.lgamma(j + 2 * order / width) - math.lgamma(j) for j in support]
        rows.append(np.exp(np.array(gammas)))
    target = np.zeros(len(rows))
    target[0] = 1
    weights[support - 1] = np.linalg.lstsq(np.array(rows), target, rcond=1e-6)[0]
    return weights
