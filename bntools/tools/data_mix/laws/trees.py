"""Gradient-boosted regression trees, the regressor of RegMix (arXiv 2407.01492).

RegMix takes LightGBM with 512 proxy runs; tables here have 8 to 200, so splits are exact and leaves may hold two runs.
The published choice is the mean of the best 100 of 100,000 simulated mixtures. Trees know no size: they are grown at
each of the two largest, joined by the power law through both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.laws.exponential import two_point
from bntools.tools.data_mix.runs.runs import Runs

Floats = NDArray[np.floating[Any]]

_TREES, _DEPTH, _RATE, _LEAF = 200, 3, 0.1, 2
_SIMULATED, _BEST = 100_000, 100


class Node(NamedTuple):
    """A split at `x[column] <= threshold`, or a leaf with a value where there is no column."""

    column: int
    threshold: float
    value: float
    children: tuple[Node, Node] | None


class Boosted(NamedTuple):
    """The mean and the trees that correct it."""

    start: float
    trees: list[Node]

    def predict(self, x: Floats) -> Floats:
        """Values [k] of rows [k, columns]."""
        columns, result = np.ascontiguousarray(x.T), np.full(len(x), self.start)
        for tree in self.trees:
            result += _value(tree, columns)
        return result


class RegMix(NamedTuple):
    """Boosted trees at the two largest sizes."""

    sizes: tuple[float, ...]
    boosted: tuple[Boosted, ...]

    def predict(self, weights: Floats, n: float) -> Floats:
        """The metric [k] at size n."""
        return two_point([each.predict(weights) for each in self.boosted], self.sizes, n)

    def choose(self, n: float, sources: int, seed: int = 0) -> Floats:
        """The mean of the 100 best of 100,000 mixtures drawn evenly from the simplex."""
        simulated = np.random.default_rng(seed).dirichlet(np.ones(sources), _SIMULATED)
        best = np.argsort(self.predict(simulated, n), kind="stable")[:_BEST]
        return simulated[best].mean(0)


def fit(runs: Runs) -> RegMix:
    """Trees at each of the two largest sizes."""
    sizes = tuple(float(size) for size in runs.sizes[-2:])
    parts = [runs.at(runs.n == size) for size in sizes]
    return RegMix(sizes, tuple(boost(part.weights, part.lower) for part in parts))


def boost(x: Floats, y: Floats) -> Boosted:
    """200 trees of depth 3 at rate 0.1, each grown on what is left of y [runs] by x [runs, columns]."""
    start, trees = float(y.mean()), []
    left = y - start
    for _ in range(_TREES):
        tree = _grown(x, left, np.arange(len(y)), _DEPTH)
        left = left - _value(tree, x.T)
        trees.append(tree)
    return Boosted(start, trees)


def _grown(x: Floats, y: Floats, rows: NDArray[np.int64], depth: int) -> Node:
    leaf = Node(-1, 0.0, _RATE * float(y[rows].mean()), None)
    if depth == 0 or len(rows) < 2 * _LEAF:
        return leaf
    gain, column, threshold = max(_split(x[rows, c], y[rows], c) for c in range(x.shape[1]))
    if gain <= 1e-12:
        return leaf
    inside = x[rows, column] <= threshold
    children = (_grown(x, y, rows[inside], depth - 1), _grown(x, y, rows[~inside], depth - 1))
    return Node(column, threshold, 0.0, children)


def _split(x: Floats, y: Floats, column: int) -> tuple[float, int, float]:
    """(squares saved, column, threshold) of the best split of one column."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order] - y.mean()
    count = np.arange(1, len(y))
    sums = np.cumsum(y)[:-1]
    gain = sums**2 / count + sums**2 / (len(y) - count)
    gain[(x[1:] <= x[:-1]) | (count < _LEAF) | (len(y) - count < _LEAF)] = 0
    best = int(np.argmax(gain))
    return float(gain[best]), column, float((x[best] + x[best + 1]) / 2)


def _value(node: Node, columns: Floats) -> Floats | float:
    """The tree's values [k] at columns [columns, k], without a subset being taken at any node."""
    if node.children is None:
        return node.value
    return np.where(columns[node.column] <= node.threshold, *(_value(child, columns) for child in node.children))
