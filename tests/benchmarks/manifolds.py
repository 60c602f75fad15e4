"""The synthetic manifolds the weights of the calibrated estimate were fitted to; `--fit` fits them again.

22 kinds, none of them from scikit-dimension's benchmark. Without `--fit` prints the error on them beside TwoNN's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.neighbours import nearest
from bntools.tools.data_dim.calibrated import WEIGHTS, calibrate, readings, statistics
from bntools.tools.data_dim.estimators import twonn

Floats = NDArray[np.float64]
Random = np.random.Generator


def _sines(rng: Random, n: int, d: int, width: int, bend: float) -> Floats:
    """Sines of random combinations of d uniform numbers: smooth and curved."""
    mix = rng.standard_normal((d, width)) * bend / np.sqrt(d)
    return np.sin(2 * rng.random((n, d)) @ mix + rng.uniform(0, 6.3, width))


def _network(rng: Random, n: int, d: int, gain: float) -> Floats:
    """A random network of two layers of tanh on d normal numbers."""
    hidden = 5 * d + 5
    inner = np.tanh(rng.standard_normal((n, d)) @ rng.standard_normal((d, hidden)) * gain / np.sqrt(d))
    return np.tanh(inner @ rng.standard_normal((hidden, 3 * d + 4)) * gain / np.sqrt(hidden))


def _torus(rng: Random, n: int, d: int) -> Floats:
    angles, radii = 2 * np.pi * rng.random((n, d)), rng.uniform(0.5, 1.5, d)
    return np.hstack([radii * np.cos(angles), radii * np.sin(angles)])


def _curve(rng: Random, n: int) -> Floats:
    """A closed curve in 6 dimensions with up to 11 harmonics."""
    orders = np.arange(1, rng.integers(4, 13))
    angles = np.outer(2 * np.pi * rng.random(n), orders)
    cosines, sines = rng.standard_normal((2, len(orders), 6)) / orders[:, None]
    return np.cos(angles) @ cosines + np.sin(angles) @ sines


def _surface(rng: Random, n: int) -> Floats:
    flat = rng.random((n, 2)) * rng.uniform(3, 12, 2)
    return np.c_[flat, np.sin(flat @ rng.standard_normal((2, 3)))]


def _coil(rng: Random, n: int, d: int) -> Floats:
    """A rolled-up line times a box."""
    t = rng.uniform(2, 4) * np.pi * (1 + rng.random(n))
    return np.c_[t * np.cos(t), t * np.sin(t), rng.random((n, d - 1)) * rng.uniform(5, 25, d - 1)]


def _graph(rng: Random, n: int, d: int) -> Floats:
    x = rng.standard_normal((n, d))
    return np.hstack([x, (x @ rng.standard_normal((d, d)) * rng.uniform(0.3, 1.2) / np.sqrt(d)) ** 2])


def _sphere(rng: Random, n: int, d: int) -> Floats:
    points = rng.standard_normal((n, d + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _ball(rng: Random, n: int, d: int) -> Floats:
    return _sphere(rng, n, d - 1) * rng.random((n, 1)) ** (1 / d)


def _mixture(rng: Random, n: int, d: int) -> Floats:
    centres = rng.uniform(1, 4) * rng.standard_normal((6, d))
    return rng.standard_normal((n, d)) + centres[rng.integers(0, 6, n)]


ROUND = (1, 2, 3, 4, 6, 9, 13, 19, 27, 40)
KINDS = {
    "cube": ((1, 2, 3, 4, 6, 9, 12, 16, 22, 30, 45, 60), lambda g, n, d: g.random((n, d))),
    "box": ((3, 5, 8, 13, 20), lambda g, n, d: g.random((n, d)) * g.uniform(0.2, 1, d)),
    "torus": ((1, 2, 3, 4, 6, 8, 11, 15), _torus),
    "sines": ((1, 2, 3, 4, 6, 8, 11, 15, 20), lambda g, n, d: _sines(g, n, d, 3 * d + 2, 2)),
    "bent sines": ((1, 2, 3, 4, 6, 8, 11), lambda g, n, d: _sines(g, n, d, 4 * d + 3, 4)),
    "network": ((1, 2, 3, 5, 8, 12, 18, 25), lambda g, n, d: _network(g, n, d, 1)),
    "steep network": ((1, 2, 3, 5, 8, 12), lambda g, n, d: _network(g, n, d, 2)),
    "beta": ((1, 2, 3, 5, 7, 10, 14), lambda g, n, d: g.beta(*g.uniform(0.7, 6, 2), (n, d))),
    "exponential": ((1, 2, 4, 6, 9, 13), lambda g, n, d: g.exponential(1, (n, d))),
    "chi square": ((1, 2, 3, 5, 7, 9), lambda g, n, d: g.standard_normal((n, d)) ** 2),
    "anisotropic": (
        (3, 5, 8, 12, 18, 25),
        lambda g, n, d: g.standard_normal((n, d)) * np.arange(1, d + 1) ** -g.uniform(0.2, 0.7),
    ),
    "graph": ((1, 2, 3, 4, 6, 9, 12), _graph),
    "coil": ((2, 3, 4, 6), _coil),
    "curve": ((1, 1, 1, 1), lambda g, n, d: _curve(g, n)),
    "surface": ((2, 2, 2, 2), lambda g, n, d: _surface(g, n)),
    "t": ((2, 4, 7, 11, 16), lambda g, n, d: g.standard_t(4, (n, d))),
    "mixture": ((2, 3, 5, 8, 12, 17), _mixture),
    "simplex": ((2, 3, 5, 8, 12, 17), lambda g, n, d: g.dirichlet(np.ones(d + 1), n)),
    "ellipsoid": (
        (2, 3, 5, 8, 12, 17),
        lambda g, n, d: _sphere(g, n, d) * g.uniform(0.4, 1.2, d + 1),
    ),
    "sphere": (ROUND, _sphere),
    "ball": (ROUND, _ball),
    "gaussian": (ROUND, lambda g, n, d: g.standard_normal((n, d))),
}


def manifolds(count: int, seed: int) -> Iterator[tuple[str, int, Floats]]:
    """Name, dimension and points of every kind and dimension."""
    rng = np.random.default_rng(seed)
    for name, (dimensions, draw) in KINDS.items():
        for d in dimensions:
            yield name, d, draw(rng, count, d)


def fit(features: Floats, truth: Floats) -> Floats:
    """Weights [k] that add up to 1, by least absolute relative error (reweighted least squares, ridge 0.02)."""
    change, rest = features[:, 1:] - features[:, :1], truth - features[:, 0]
    weights, result = np.ones(len(truth)), np.zeros(change.shape[1])
    for _ in range(30):
        normal = change.T @ (weights[:, None] * change) + 0.02 * np.eye(len(result))
        result = np.linalg.solve(normal, change.T @ (weights * rest))
        weights = 1 / np.maximum(np.abs(np.expm1(change @ result - rest)), 0.03)
        weights /= weights.mean()
    return np.r_[1 - result.sum(), result]


def main() -> None:
    features, truth, plain, ours = [], [], [], []
    for count in (500, 1000):
        for _, d, points in manifolds(count, seed=count):
            r = nearest(points, np.arange(count), 20, 1).distances
            found = statistics(r)
            ours.append(calibrate(found, count).value / d - 1)
            plain.append(twonn(r) / d - 1)
            truth.append(np.log(d))
            features.append(np.mean(list(readings(found, count).values()), axis=0))
    print(f"{len(truth)} synthetic manifolds of 500 and 1000 points, mean relative error")
    print(f"twonn {np.abs(plain).mean():.4f}  calibrated {np.abs(ours).mean():.4f}")
    if "--fit" in sys.argv:
        weights = fit(np.array(features), np.array(truth))
        print("fitted", dict(zip(WEIGHTS, weights.round(2).tolist(), strict=True)), "used", WEIGHTS)


if __name__ == "__main__":
    main()
